"""Scores of the model that a client would keep, on the client's own held-out rows."""

import time
from collections.abc import Mapping

from hanse.errors import UserError
from hanse.federation.interfaces.algorithm import Algorithm, Client
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.task import Task
from hanse.federation.messages import Instruction, Update
from hanse.federation.method import Method


def refuse_scores(method: Method) -> None:
    """Raise UserError if no score of a single client may leave it."""
    if reason := method.withholds_scores:
        raise UserError(f"{reason}, so a single client's scores do not leave it.")


def scores(
    tasks: Mapping[str, Task], method: Method, instruction: Instruction, client: Client
) -> Update:
    """An update without tensors: the scores, with the number of rows as its weight."""
    asked = [task for task in tasks.values() if not task.test_only]
    if not asked or not client.learner.examples("test"):
        return Update(weight=0.0)
    start = time.perf_counter()
    kept = kept_model(method.algorithm, instruction, client)
    numbers: dict[str, float] = {}
    for task in asked:
        numbers |= task.evaluate(kept, "test").metrics
    numbers["seconds"] = time.perf_counter() - start
    return Update({}, numbers, weight=float(len(client.learner.examples("test"))))


def kept_model(algorithm: Algorithm, instruction: Instruction, client: Client) -> Learner:
    """The learner of the model that a client would keep, with this model's tensors loaded."""
    learner = client.learner
    kept = learner.models[algorithm.keeps] if algorithm.keeps else learner
    kept.load(algorithm.personalized(instruction, client))
    return kept
