"""Answers of a trained adapter or of its base model to typed prompts: `hanse chat`."""

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
from hanse.experiment.assembly.dataset import source_rows
from hanse.experiment.assembly.resources import Resources, rendering
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.generation import Decoding, OnText, generate
from hanse.randomness import RoundContext
from hanse.serving.trained_adapter import Trained, find

log = logging.getLogger(__name__)

PLACE = "the prompt"  # the place of a typed row, for messages


@dataclass
class Talk:
    """A conversation in the format of the rows that the adapter was trained on.

    kind: of those rows. Only a conversation keeps the messages before; with rows of other kinds
        each prompt stands alone.
    """

    trained: Trained
    learner: AdaptedModel
    kind: str
    messages: list[Mapping[str, str]] = field(default_factory=list)
    turns: int = 0  # each turn draws its own random numbers

    @property
    def labels(self) -> dict[str, str]:
        """The label words that the model chooses from; empty if it writes text or tags words."""
        chooses = "label_words" in self.learner.backbone.head.reads
        return self.trained.experiment.data.labels if chooses else {}

    def speak_as(self, base: bool) -> None:
        """Answer with the base model from now on, or with the adapted one."""
        self.trained.use(self.learner, base)

    def forget(self) -> None:
        """Remove all messages of the conversation."""
        self.messages.clear()
        self.turns = 0

    def answer(self, prompt: str, decoding: Decoding, on_text: OnText | None = None) -> str:
        """The model's answer; prompt and answer are added to the messages.

        on_text: is called with each piece of the answer while the model writes.
        """
        self.turns += 1
        seed = RoundContext(decoding.seed, self.turns).derive("answer")
        message = {"role": "user", "content": prompt}
        ids = self._prompt_tokens(message)
        backbone, adapter = self.learner.backbone, self.learner.active_adapter
        (answer,) = generate(backbone, adapter, [ids], replace(decoding, seed=seed), on_text)
        self.messages += [message, {"role": "assistant", "content": answer}]
        return answer

    def choose(self, text: str) -> list[tuple[str, float]]:
        """The label words with their probabilities as the answer to a text, likeliest first."""
        experiment, backbone = self.trained.experiment, self.learner.backbone
        row = Row(text=text, label=next(iter(self.labels)), place=PLACE)
        [example] = rendering(experiment, self.labels, "label_words", backbone).render([row])
        with torch.inference_mode():
            scores = self.learner.scores(self.learner.batch([example]))[0]
        probabilities = scores.double().softmax(dim=0).tolist()
        pairs = zip(self.labels.values(), probabilities, strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    @property
    def tags_words(self) -> bool:
        """True if the model answers a text with a tag for each word."""
        return "tags" in self.learner.backbone.head.reads

    def tags(self, text: str) -> list[tuple[str, str]]:
        """The words of a text, split at white space, each with its likeliest tag.

        Words beyond max_length, and words without tokens, are left out.
        """
        experiment, backbone = self.trained.experiment, self.learner.backbone
        labels, words = experiment.data.labels, tuple(text.split())
        any_tags = (next(iter(labels)),) * len(words)
        row = Row(words=words, tags=any_tags, text=" ".join(words), place=PLACE)
        [example] = rendering(experiment, labels, "tags", backbone).render([row])
        with torch.inference_mode():
            best = self.learner.forward(self.learner.batch([example])).argmax(dim=1).tolist()
        max_length = backbone.max_length(experiment.model.max_length)
        read = read_words(row, backbone.tokenizer, max_length)
        return [(words[at], example.classes[tag]) for at, tag in zip(read, best, strict=True)]

    def _prompt_tokens(self, message: Mapping[str, str]) -> list[int]:
        """The tokens after which the model answers."""
        tokenizer = self.learner.backbone.tokenizer
        if self.learner.backbone.head.splits:
            return self._encoder_tokens(message)
        if self.kind == "messages":
            return question([*self.messages, message], tokenizer)
        ids = lead(tokenizer) + encode(tokenizer, [message["content"]])[0]
        if not ids:
            raise UserError("the prompt is empty; write something.")
        return ids

    def _encoder_tokens(self, message: Mapping[str, str]) -> list[int]:
        """The tokens that an encoder reads, made as in training."""
        backbone = self.learner.backbone
        labels = self.trained.experiment.data.labels
        row = Row(prompt=message["content"], completion="?", place=PLACE)
        if self.kind == "messages":
            messages = (*self.messages, message, {"role": "assistant", "content": "?"})
            row = Row(messages=messages, place=PLACE)
        elif self.kind == "labelled":
            row = Row(text=message["content"], label=next(iter(labels)), place=PLACE)
        [example] = rendering(self.trained.experiment, labels, "tokens", backbone).render([row])
        return list(example.ids[: example.prompt])


def open_talk(folder: Path, overrides: Iterable[str] = (), trusted: bool = False) -> Talk:
    """A conversation with the adapter in a run's folder or a PEFT folder.

    trusted: true if all code that the run names may run; see `loading.load_left`.
    Raises UserError if there is no adapter, or if its base model is not on this machine.
    """
    trained = find(folder, overrides, trusted)
    if trained.rounds is not None:
        log.info("%s is not finished: this is its adapter after round %d", folder, trained.rounds)
    return Talk(trained, trained.learner(Resources(), {}), _kind(folder, trained))


def _kind(folder: Path, trained: Trained) -> str:
    """The kind of rows that an adapter was trained on; a conversation if that is not known."""
    if trained.experiment.data.labels:
        return "labelled"
    if not (folder / "experiment.yaml").is_file():
        return "messages"
    try:
        return source_rows.kind(trained.experiment)
    except UserError:  # the data are not here
        return "messages"
