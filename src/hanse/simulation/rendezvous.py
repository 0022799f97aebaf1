"""A rendezvous of clients in one process: they wait for each other, and then train together.

Each client runs in a greenlet, one at a time, until it has an answer or waits here with a job.
When all of them wait, their jobs are done together, and each client continues with its result.
Nothing runs in parallel, so the order of events and every random number are the same each time.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

Job = TypeVar("Job")
Result = TypeVar("Result")
Answer = TypeVar("Answer")


class Rendezvous(Generic[Job, Result]):
    """Collects the jobs of waiting clients; `work` does all of them together."""

    def __init__(self, work: Callable[[Sequence[Job]], Sequence[Result]]) -> None:
        self._work = work
        self._inside: set[greenlet] = set()

    def meet(self, job: Job) -> Result:
        """Wait until all others wait as well; return the job's result.

        Outside of `run` the job is done at once, by itself.
        """
        current = getcurrent()
        if current not in self._inside or current.parent is None:
            return self._work([job])[0]
        result: Result = current.parent.switch(job)
        return result

    def run(self, calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
        """Call all, and return their answers in order; an exception in one ends the others."""
        answers: dict[greenlet, Answer] = {}
        members = [greenlet(call) for call in calls]
        self._inside.update(members)
        try:
            results: dict[greenlet, tuple[Result, ...]] = {member: () for member in members}
            while results:
                jobs: dict[greenlet, Job] = {}
                for member, result in results.items():
                    value = member.switch(*result)
                    if member.dead:
                        answers[member] = value
                    else:
                        jobs[member] = value
                done = self._work(list(jobs.values())) if jobs else []
                results = {member: (result,) for member, result in zip(jobs, done, strict=True)}
        finally:
            for member in members:
                if not member.dead:
                    member.throw(GreenletExit)
            self._inside.difference_update(members)
        return [answers[member] for member in members]
