"""A place where several clients of one process wait for each other, so as to train together.

Clients run one at a time, each in a greenlet: until it has an answer, or waits here with a job.
When none can go on, all jobs are done at once, and each goes on with its result. Nothing runs in
parallel, so the order of events, and every random number, is the same each time.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

Job = TypeVar("Job")
Result = TypeVar("Result")
Answer = TypeVar("Answer")


class Rendezvous(Generic[Job, Result]):
    """Where jobs are gathered; `work` does those that wait together."""

    def __init__(self, work: Callable[[Sequence[Job]], Sequence[Result]]) -> None:
        self._work = work
        self._inside: set[greenlet] = set()

    def meet(self, job: Job) -> Result:
        """Wait until all others wait as well; the job's result. Outside of `run`, do it at once."""
        here = getcurrent()
        if here not in self._inside or here.parent is None:
            return self._work([job])[0]
        result: Result = here.parent.switch(job)
        return result

    def run(self, calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
        """Call all; their answers in order. What one of them raises ends the others."""
        answers: dict[greenlet, Answer] = {}
        members = [greenlet(call) for call in calls]
        self._inside.update(members)
        try:
            results: dict[greenlet, tuple[Result, ...]] = {member: () for member in members}
            while results:
                jobs: dict[greenlet, Job] = {}
                for member, result in results.items():
                    said = member.switch(*result)
                    if member.dead:
                        answers[member] = said
                    else:
                        jobs[member] = said
                done = self._work(list(jobs.values())) if jobs else []
                results = {member: (own,) for member, own in zip(jobs, done, strict=True)}
        finally:
            for member in members:
                if not member.dead:
                    member.throw(GreenletExit)
            self._inside.difference_update(members)
        return [answers[member] for member in members]
