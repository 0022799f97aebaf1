"""Talk with a trained adapter, or with its base model: `hanse chat`."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from hanse.data.formats.row import Row
from hanse.data.tokenization.conversations import question
from hanse.data.tokenization.tags import read_words
from hanse.data.tokenization.tokenizer import encode, lead
from hanse.errors import UserError
from hanse.experiment.assembly import source_rows
from hanse.experiment.assembly.resources import Resources, examples
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.generation import Decoding, OnText, generate
from hanse.randomness import RoundContext
from hanse.serving.trained_adapter import Trained, find

log = logging.getLogger(__name__)

PLACE = "the prompt"  # where a row stands that was typed in


@dataclass
class Talk:
    """A conversation in the format of the rows that the adapter was trained on.

    kind: of those rows. A conversation has a memory; with rows of other kinds each prompt stands
        alone: after a completion nothing is said, and a label is an answer to its own text.
    """

    trained: Trained
    learner: AdaptedModel
    kind: str
    messages: list[Mapping[str, str]] = field(default_factory=list)
    turns: int = 0  # so that each draws its own random numbers

    @property
    def labels(self) -> dict[str, str]:
        """The words that answer a text; none where the answer is free, or a tag for each word."""
        chosen = "label_words" in self.learner.backbone.head.reads
        return self.trained.experiment.data.labels if chosen else {}

    def speak_as(self, base: bool) -> None:
        """Let the base model speak from now on, or the adapted one."""
        self.trained.use(self.learner, base)

    def forget(self) -> None:
        """Begin anew, as if nothing had been said."""
        self.messages.clear()
        self.turns = 0

    def answer(self, prompt: str, decoding: Decoding, on_text: OnText | None = None) -> str:
        """What the model says, word by word to `hear`; a conversation remembers both."""
        self.turns += 1
        seed = RoundContext(decoding.seed, self.turns).derive("answer")
        asked = {"role": "user", "content": prompt}
        ids = self._asked(asked)
        backbone, adapter = self.learner.backbone, self.learner.active_adapter
        (said,) = generate(backbone, adapter, [ids], replace(decoding, seed=seed), on_text)
        self.messages += [asked, {"role": "assistant", "content": said}]
        return said

    def choose(self, text: str) -> list[tuple[str, float]]:
        """The label words with their probabilities as the answer to a text, likeliest first."""
        experiment, backbone = self.trained.experiment, self.learner.backbone
        row = Row(text=text, label=next(iter(self.labels)), place=PLACE)
        (example,) = examples(experiment, [row], self.labels, "label_words", backbone)
        with torch.inference_mode():
            scores = self.learner.scores(self.learner.batch([example]))[0]
        found = zip(self.labels.values(), scores.double().softmax(dim=0).tolist(), strict=True)
        return sorted(found, key=lambda pair: -pair[1])

    @property
    def tags_words(self) -> bool:
        """Whether it answers a text with a tag for each word."""
        return "tags" in self.learner.backbone.head.reads

    def tags(self, text: str) -> list[tuple[str, str]]:
        """The words of a text, as white space parts them, each with its likeliest tag.

        What is behind max_length is not read, nor what the tokenizer makes nothing of.
        """
        experiment, backbone = self.trained.experiment, self.learner.backbone
        known, words = experiment.data.labels, tuple(text.split())
        any_tags = (next(iter(known)),) * len(words)
        row = Row(words=words, tags=any_tags, text=" ".join(words), place=PLACE)
        (example,) = examples(experiment, [row], known, "tags", backbone)
        with torch.inference_mode():
            best = self.learner.forward(self.learner.batch([example])).argmax(dim=1).tolist()
        room = backbone.max_length(experiment.model.max_length)
        read = read_words(row, backbone.tokenizer, room)
        return [(words[at], example.classes[tag]) for at, tag in zip(read, best, strict=True)]

    def _asked(self, message: Mapping[str, str]) -> list[int]:
        """The tokens after which the model answers."""
        tokenizer = self.learner.backbone.tokenizer
        if self.learner.backbone.head.splits:
            return self._read(message)
        if self.kind == "messages":
            return question([*self.messages, message], tokenizer)
        ids = lead(tokenizer) + encode(tokenizer, [message["content"]])[0]
        if not ids:
            raise UserError("the prompt is empty; write something.")
        return ids

    def _read(self, message: Mapping[str, str]) -> list[int]:
        """The tokens that an encoder reads, as it did in training."""
        backbone = self.learner.backbone
        known = self.trained.experiment.data.labels
        row = Row(prompt=message["content"], completion="?", place=PLACE)
        if self.kind == "messages":
            talk = (*self.messages, message, {"role": "assistant", "content": "?"})
            row = Row(messages=talk, place=PLACE)
        elif self.kind == "labelled":
            row = Row(text=message["content"], label=next(iter(known)), place=PLACE)
        (example,) = examples(self.trained.experiment, [row], known, "tokens", backbone)
        return list(example.ids[: example.prompt])


def open_talk(folder: Path, overrides: Iterable[str] = (), trusted: bool = False) -> Talk:
    """A talk with the adapter in a run's folder or a PEFT folder.

    trusted: whether all code that the run names may run; see `loading.load_left`.

    Raises UserError if there is none, or if its base model is not here.
    """
    trained = find(folder, overrides, trusted)
    if trained.rounds is not None:
        log.info("%s is not finished: this is what it knew after round %d", folder, trained.rounds)
    return Talk(trained, trained.learner(Resources(), {}), _kind(folder, trained))


def _kind(folder: Path, trained: Trained) -> str:
    """The kind of rows that an adapter was trained on; a conversation if that cannot be told."""
    if trained.experiment.data.labels:
        return "labelled"
    if not (folder / "experiment.yaml").is_file():
        return "messages"
    try:
        return source_rows.kind(trained.experiment)
    except UserError:  # the data are not here
        return "messages"
