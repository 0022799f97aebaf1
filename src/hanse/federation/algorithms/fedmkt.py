"""FedMKT (Fan et al. 2024, 2406.02224): a server's and clients' models teach each other."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from hanse import atomic_files
from hanse.errors import UserError
from hanse.federation.distillation.logit_exchange import LogitExchange
from hanse.federation.distillation.public_logits import (
    PUBLIC,
    PublicRows,
    predictions,
    public_rows,
)
from hanse.federation.distillation.selected_knowledge import LOSSES, CoTuning, Strategy, select
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.interfaces.token_alignment import Correspondence
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import top_k_transfer
from hanse.tensors.named import Layout, Tensors, add_prefix, drop, strip_prefix
from hanse.tensors.serialization import MessageError, pack, unpack

log = logging.getLogger(__name__)

MOST = 10_000  # nats of a loss; one of a random model is the logarithm of its number of tokens
TOKENS = "public_tokens"  # the file with the server's tokens of the public rows


@dataclass(frozen=True)
class FedMKT(LogitExchange):
    """Models of any size and tokenizer learn those predictions of public rows that beat their own.

    In a round a client learns from the server's predictions of the last one, trains on its own
    rows, and sends its k largest logits of each public label with its loss of each public row. The
    server's model learns a row from the client with the least loss, if that is below its own. A
    model learns by λ·CE(label) + (1 - λ)·CE(·, p). Tokens are aligned at the client, which is sent
    the server's tokens once; the server sees no other tokenizer.

    N labels in n rows take N·(k·(e + 4) + e) + 4·n bytes up and as many down, with e bytes for a
    number.
    """

    needs: ClassVar[frozenset[str]] = frozenset({UPDATES})
    example_kinds: ClassVar[tuple[str, ...]] = ("tokens",)
    classes: ClassVar[str] = "tokens"

    label_weight: Annotated[float, Field(ge=0, le=1)] = 0.9  # λ
    strategy: Strategy = "greater"

    def prepare(self, server: Server, folder: Path) -> Mapping[str, Path]:
        tokens = {"tokens": server.learner.tokenization(PUBLIC)}
        content = pack({"message": TOKENS, "kind": TOKENS}, {}, tokens)
        atomic_files.write(folder / TOKENS, content)
        return {TOKENS: folder / TOKENS}

    def init(self, server: Server) -> State:
        rows = public_rows(server.learner, tokens=True)
        self.refuse_more(self.k or 0, rows.classes, "the server's model")
        sizes = {"rows": rows.total, "examples": len(rows.counts), "classes": rows.classes}
        state = {name: torch.tensor(size) for name, size in sizes.items()}
        return {"model": server.learner.tensors(), "sizes": state}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        return Instruction(state.get("knowledge", {}))

    def typical(self, state: State) -> State:
        rows, examples, classes = self._sizes(state)
        losses = torch.zeros(examples)
        return {**state, "knowledge": {**self.any_logits(rows, classes), LOSSES: losses}}

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        rows, examples, classes = self._sizes(state)
        losses = torch.empty(examples, device="meta")
        return {**self.logits_layout(rows, classes), LOSSES: losses}

    def validate(self, update: Update, state: State, profile: ClientProfile) -> None:
        self.check(drop(update.tensors, {LOSSES}), int(state["sizes"]["classes"]))
        losses = update.tensors[LOSSES]
        if bool(((losses < 0) | (losses > MOST)).any()):
            raise MessageError(f"a loss of its public rows is below 0 or above {MOST:,}")

    def train(self, instruction: Instruction, client: Client) -> Update:
        learner = client.learner
        if TOKENS not in client.session:  # the same in all rounds
            client.session[TOKENS] = learner.correspondences(PUBLIC, _tokens(client.files))
        up, down = client.session[TOKENS]
        rows, kept = public_rows(learner, tokens=True), self.kept(up.classes)
        self.refuse_more(kept, rows.classes, f"the model of {client.profile.name}")
        learner.load(self.personalized(instruction, client))
        if instruction.tensors:
            received = _transferred(drop(instruction.tensors, {LOSSES}), down)
            teacher = {**received, LOSSES: instruction.tensors[LOSSES]}
            self._learn(learner, rows, [teacher], client.profile.name)
        result = learner.fit()
        client.memory.update(learner.tensors())
        parts, losses = predictions(learner, rows, self.form(kept))
        sent = {**_transferred(parts, up), LOSSES: losses.float()}
        return Update(sent, result.numbers())

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        """All updates side by side, since `step` alone has the server's own losses."""
        tensors: dict[str, torch.Tensor] = {}
        for place, (_, update) in enumerate(updates):
            tensors |= add_prefix(f"{place}/", update.tensors)
        weight = sum(update.weight for _, update in updates)
        return Aggregate(tensors, {}, weight, tuple(profile.name for profile, _ in updates))

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        learner, rows = server.learner, public_rows(server.learner, tokens=True)
        learner.load(state["model"])
        places = range(len(combined.clients))
        teachers = [strip_prefix(combined.tensors, f"{place}/") for place in places]
        self._learn(learner, rows, teachers, "the server")
        parts, losses = predictions(learner, rows, self.form(self.kept(rows.classes)))
        knowledge = {**parts, LOSSES: losses.float()}
        return {**state, "model": learner.tensors(), "knowledge": knowledge}

    def _sizes(self, state: State) -> tuple[int, int, int]:
        """The numbers of public labels, of public rows, and of the server's tokens."""
        rows, examples, classes = (
            int(state["sizes"][name]) for name in ("rows", "examples", "classes")
        )
        return rows, examples, classes

    def _learn(
        self, learner: Learner, rows: PublicRows, teachers: Sequence[Tensors], name: str
    ) -> None:
        """Train on public rows, with the predictions of those that a teacher predicts better."""
        _, own = predictions(learner, rows, self.form(1))
        knowledge = select(teachers, own.float(), rows, self.strategy)
        count = f"{int(knowledge.taken.sum()):,} of {len(own):,}"
        log.info("%s learns the predictions of %s public rows", name, count)
        learner.fit(objective=CoTuning(rows, knowledge, self.label_weight), split=PUBLIC)


def _transferred(parts: Tensors, to: Correspondence) -> dict[str, torch.Tensor]:
    """Predictions of one model as those of another one's labels."""
    return top_k_transfer.transfer(parts, to.rows, to.mapping, to.labels, to.classes)


def _tokens(files: Mapping[str, Path]) -> Tensors:
    """The server's tokens of the public rows, from the file that was sent once."""
    try:
        return unpack(files[TOKENS].read_bytes(), TOKENS)[2].get("tokens", {})
    except MessageError as error:
        raise UserError(
            f"the server's tokens cannot be read: {error}; it must be updated."
        ) from None
