"""An example: one tokenized row, and the parts of the row that it lacks."""

from dataclasses import dataclass
from enum import IntFlag

IGNORED = -100  # the label of a token that is read but not learned


class Lost(IntFlag):
    """Parts of a row that an example lacks: cut for max_length, or left out by a chat template."""

    NOTHING = 0
    TURNS = 1  # earlier turns of a conversation
    SYSTEM = 2  # the end of the system turn
    PROMPT = 4  # the beginning of the prompt
    TEXT = 8  # the end of a text
    ANSWER = 16  # the end of an answer
    BESIDE_CALL = 32  # the text beside a tool call, which the chat template leaves out
    REST = 64  # the rest of a text, which other examples have


@dataclass(frozen=True)
class Example:
    """One tokenized example; len(example) is the number of its tokens.

    ids: the tokens that are read.
    labels: for each token the id to learn there (the token itself), or IGNORED; as long as `ids`.
    choices: for an example that is answered by one of several label words: their tokens, each of
        which would follow `ids`; the labels are then all IGNORED.
    choice: the index of the right label word among `choices`.
    prompt: the number of `ids` before the last answer; 0 without an answer.
    answer: the text of that answer, uncut; "" without an answer.
    tags: for an example whose words are tagged, the class of each token that begins a word, IGNORED
        elsewhere; as long as `ids`, and the labels are then all IGNORED.
    classes: their names, the same for all examples.
    lost: the parts of the row that had to be left out.
    missing: the number of the row's tokens that are left out for max_length.
    rejected: for an example with two answers to one prompt, the place in `ids` at which the prompt
        begins again, with the answer that is the worse one; 0 otherwise.
    verdict: the judgement of the answer, if there is one: 1 for a good one and 0 for a bad one, or
        any number.
    sampled: the answer was drawn from a model in training, and is read only once.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...] = ()
    choice: int = IGNORED
    prompt: int = 0
    answer: str = ""
    tags: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    lost: Lost = Lost.NOTHING
    missing: int = 0
    rejected: int = 0
    verdict: float | None = None
    sampled: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def longest(self) -> int:
        """The number of tokens of its longer row; most examples are one row."""
        return max(self.rejected, len(self.ids) - self.rejected)
