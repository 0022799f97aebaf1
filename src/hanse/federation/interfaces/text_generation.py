"""The half of a learner that writes text; learners that read no text refuse its calls."""

from collections.abc import Sequence
from typing import Any


class TextGeneration:
    """Texts by a model; examples are those of a learner, whose tokens are the model's."""

    def generate(self, examples: Sequence[Any], max_new_tokens: int) -> list[str]:
        """The model's greedy continuation of each example's prompt."""
        raise TypeError(f"{type(self).__name__} generates no text")

    def continuations(
        self, examples: Sequence[Any], max_new_tokens: int, temperature: float, seed: int
    ) -> list[Any]:
        """Examples of each example's prompt and an answer of the model, whose tokens are labelled.

        temperature: 0 takes the most likely token; otherwise tokens are drawn, seeded by `seed`.
        """
        raise TypeError(f"{type(self).__name__} generates no text")

    def text(self, ids: Sequence[int]) -> str:
        """The text of some tokens."""
        raise TypeError(f"{type(self).__name__} reads no text")
