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
from hanse.federation.distillation.logit_exchange import LogitExchange, refuse_unusable
from hanse.federation.distillation.public_logits import (
    PUBLIC,
    PublicRows,
    predictions,
    public_rows,
)
from hanse.federation.distillation.selected_knowledge import CoTuning, Strategy, select
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.interfaces.token_alignment import Correspondence
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import top_k_transfer
from hanse.tensors.named import Layout, Tensors, add_prefix, strip_prefix
from hanse.tensors.serialization import MessageError, pack, unpack

log = logging.getLogger(__name__)

TOKENS = "public_tokens"  # the file with the server's tokens of the public rows


@dataclass(frozen=True)
class FedMKT(LogitExchange):
    """Models of any size and tokenizer learn those predictions of public rows that beat their own.

    In a round a client learns from the server's predictions of the last one, trains on its own
    rows, and sends its k largest logits of each public label. The server's model learns a row from
    the client that predicts its labels best, if better than itself. A model learns by
    λ·CE(label) + (1 - λ)·CE(·, p). Tokens are aligned at the client, which is sent the server's
    tokens once; the server sees no other tokenizer.

    The paper's clients send their losses, too. Here the receiver computes them from the predictions
    (`select`): no client is believed, and losses are over the same tokens whatever the tokenizer.

    N labels take N·(k·(e + 4) + e) bytes up and as many down, with e bytes for a number.
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
        sizes = {"rows": rows.total, "classes": rows.classes}
        state = {name: torch.tensor(size) for name, size in sizes.items()}
        return {"model": server.learner.tensors(), "sizes": state}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        return Instruction(state.get("knowledge", {}))

    def typical(self, state: State) -> State:
        return {**state, "knowledge": self.any_logits(*self._sizes(state))}

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return self.logits_layout(*self._sizes(state))

    def validate(self, update: Update, state: State, profile: ClientProfile) -> None:
        self.check(update.tensors, int(state["sizes"]["classes"]))

    def train(self, instruction: Instruction, client: Client) -> Update:
        learner, rows = client.learner, public_rows(client.learner, tokens=True)
        self.refuse_more(self.k or 0, rows.classes, f"the model of {client.profile.name}")
        if TOKENS not in client.session:  # the same in all rounds
            client.session[TOKENS] = learner.correspondences(PUBLIC, _tokens(client.files))
        up, down = client.session[TOKENS]
        learner.load(self.personalized(instruction, client))
        if instruction.tensors:
            refuse_unusable(instruction.tensors, len(up.labels), up.classes)
            received = self._transferred(instruction.tensors, down)
            self._learn(learner, rows, [received], client.profile.name)
        result = learner.fit()
        client.memory.update(learner.tensors())
        parts = predictions(learner, rows, self.form(self.kept(up.classes)))
        return Update(self._transferred(parts, up), result.numbers())

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        """All updates side by side, since `step` alone has the server's own predictions."""
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
        knowledge = predictions(learner, rows, self.form(self.kept(rows.classes)))
        return {**state, "model": learner.tensors(), "knowledge": knowledge}

    def _sizes(self, state: State) -> tuple[int, int]:
        """The numbers of public labels and of the server's tokens."""
        return int(state["sizes"]["rows"]), int(state["sizes"]["classes"])

    def _transferred(self, parts: Tensors, to: Correspondence) -> dict[str, torch.Tensor]:
        """Predictions of one model as those of another one's labels, with as many as that keeps."""
        k = self.kept(to.classes)
        return top_k_transfer.transfer(parts, to.rows, to.mapping, to.labels, to.classes, k)

    def _learn(
        self, learner: Learner, rows: PublicRows, teachers: Sequence[Tensors], name: str
    ) -> None:
        """Train on public rows, with the predictions of those that a teacher predicts better."""
        own = predictions(learner, rows, self.form(self.kept(rows.classes)))
        knowledge = select(teachers, own, rows, self.strategy)
        count = f"{int(knowledge.taken.sum()):,} of {len(knowledge.taken):,}"
        log.info("%s learns the predictions of %s public rows", name, count)
        learner.fit(objective=CoTuning(rows, knowledge, self.label_weight), split=PUBLIC)


def _tokens(files: Mapping[str, Path]) -> Tensors:
    """The server's tokens of the public rows, from the file that was sent once."""
    try:
        return unpack(files[TOKENS].read_bytes(), TOKENS)[2].get("tokens", {})
    except MessageError as error:
        raise UserError(
            f"the server's tokens cannot be read: {error}; it must be updated."
        ) from None
