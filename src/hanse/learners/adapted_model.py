"""A base model with one adapter, as a learner."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter

from hanse.data import packed
from hanse.data.example import Example
from hanse.errors import UserError
from hanse.federation.constants import Constants
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.federation.interfaces.results import Memory, Penalty, TrainResult
from hanse.federation.interfaces.row_protection import RowProtection, Sampling
from hanse.federation.interfaces.token_alignment import Correspondence
from hanse.federation.interfaces.trained_tensors import TrainedTensors
from hanse.learners import adapter_folder, token_exchange
from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients.member import Member
from hanse.learners.fitting import shortened, train
from hanse.learners.generation import Decoding, continuations, generate
from hanse.learners.injection import parts_of_adapters
from hanse.learners.injection.attached_adapter import AttachedAdapter, in_training
from hanse.learners.injection.mixed import kind_of
from hanse.learners.models.emulators import places
from hanse.learners.models.head import Reading
from hanse.learners.private_training import private_gradients
from hanse.learners.training.batches import Batch, answer_scores, collate
from hanse.learners.training.checkpoint import TrainingCheckpoint
from hanse.learners.training.job import TrainingJob
from hanse.learners.training.marks import TRIGGERS, Mark, MixedRows, with_mark
from hanse.learners.training.packing import row_count
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors


@dataclass
class AdaptedModel(Learner):
    """A client's (or the server's) learner on a base model that may be shared.

    splits: examples by split. optimizer_state: the optimizer's state after the last round.
    together: trains this client in one forward pass with others, which use the same model.
    frozen: those of the adapter's tensors that are not trained.
    residual: a change of the base's weights beside the adapter.
    base_only: logits and texts are those of the base model alone.
    checkpoint: where training by itself writes its progress.
    models: those beside it, each with its own adapter or frozen, and its own optimizer state.
    protection: hides the rows in the next training. sealed: only that training may read them.
    mark: its owner's, which every training lays.
    """

    backbone: Backbone
    adapter: str
    splits: Mapping[str, Sequence[Example]]
    training: TrainingSettings
    objective: Objective
    context: RoundContext
    rounds: int
    optimizer_state: Memory
    together: Callable[[Member], TrainResult] | None = None
    frozen: Tensors = field(default_factory=dict)
    residual: Tensors = field(default_factory=dict)
    base_only: bool = False
    checkpoint: TrainingCheckpoint | None = None
    models: Mapping[str, "AdaptedModel"] = field(default_factory=dict)
    max_length: int = 0
    protection: RowProtection | None = None
    sealed: bool = False
    mark: Mark | None = None

    def for_request(self, context: RoundContext, optimizer_state: Memory) -> "AdaptedModel":
        """A copy for one request; the models beside it are copied, too."""
        models = {name: model.for_request(context, {}) for name, model in self.models.items()}
        return replace(self, context=context, optimizer_state=optimizer_state, models=models)

    def configure(self, numbers: Mapping[str, float]) -> None:
        self.adapter = parts_of_adapters.select(self.backbone, self.adapter, numbers)
        self.training = shortened(self, numbers)

    def keep_optimizer_state(self, state: Memory) -> None:
        self.optimizer_state = state

    @property
    def attached(self) -> AttachedAdapter:
        """The record of its adapter in the shared model."""
        return self.backbone.adapters[self.adapter]

    def parameters(self) -> Mapping[str, Parameter]:
        live = self.attached.parameters
        return {n: p for n, p in live.items() if n not in self.frozen} if self.frozen else live

    @property
    def scaling(self) -> float:
        return self.attached.scaling

    @property
    def rank(self) -> int:
        """The rank of its adapter."""
        return self.attached.rank

    def initial(self) -> Tensors:
        return self.backbone.initial(self.adapter)

    def constants(self) -> Constants:
        return self.backbone.constants(self.adapter)

    def has_constants(self, digest: str) -> bool:
        return self.backbone.has_constants(self.adapter, digest)

    def put_constants(self, constants: Constants) -> None:
        if constants.digest:
            self.backbone.put_constants(self.adapter, constants)

    def freeze(self, tensors: Tensors) -> None:
        self.frozen = dict(tensors)
        self._set_frozen()

    def set_residual(self, residual: Tensors) -> None:
        self.residual = residual

    def names_in(self, whole: TrainedTensors) -> dict[str, str]:
        backbone, live = self.backbone, self.parameters()
        return places.names_in_whole(backbone.name, backbone.model, live, whole.parameters())

    def load(self, tensors: Tensors) -> None:
        super().load(tensors)
        self._set_frozen()  # another learner may have used the same adapter

    def _set_frozen(self) -> None:
        live = self.attached.parameters
        for name, tensor in self.frozen.items():
            live[name].data.copy_(tensor)

    def examples(self, split: str) -> Sequence[Example]:
        if self.sealed and split == "train":
            raise UserError(private_gradients.READ_AGAIN)
        return self.splits.get(split, ())

    def sampling(self) -> Sampling:
        return self.training.sampling(len(self.examples("train")))

    def protect(self, protection: RowProtection) -> None:
        self.protection, self.sealed = protection, True

    def lengths(self, split: str) -> list[int]:
        return packed.lengths(self.examples(split))

    def row_count(self, split: str) -> int:
        """The rows of one pass of training over a split: examples, or packed rows of several."""
        return row_count(self.lengths(split), self.training, self.max_length)

    def batch(self, examples: Sequence[Example]) -> Batch:
        return collate(examples, self.backbone.device)

    def forward(self, batch: Batch) -> Tensor:
        """(N, classes) logits in float32; those of a language model are at the labels."""
        return self._logits(batch, self.base_only)

    @torch.no_grad()
    def base_logits(self, batch: Batch) -> Tensor:
        return self._logits(batch, base=True)

    def _logits(self, batch: Batch, base: bool) -> Tensor:
        """The logits with the adapter, or those of the base model, with the residual."""
        cached = self.backbone.with_cached_layers(self.adapter, batch.ids, batch.lengths)
        rows = self.backbone.rows(self.adapter, batch.lengths, batch.ids.shape[1])
        with self._switched(base), nullcontext() if batch.sampled else cached:
            return self.backbone.logits(batch.ids, batch.at, batch.lengths, rows)

    def hidden_states(self, batch: Batch, base: bool = False) -> Tensor:
        return self._of_layers(self.backbone.head.hidden_states, batch, base)

    def attentions(self, batch: Batch, base: bool = False) -> Tensor:
        return self._of_layers(self.backbone.head.attentions, batch, base)

    def _of_layers(self, read: Reading, batch: Batch, base: bool) -> Tensor:
        """Tensors read from all layers, without the cache, which has the last output alone."""
        gradients = torch.is_grad_enabled() and not base
        with torch.set_grad_enabled(gradients), self._switched(base or self.base_only):
            return self.backbone.of_layers(read, batch.ids, batch.at, batch.lengths)

    @contextmanager
    def _switched(self, base: bool) -> Iterator[None]:
        """Within this context, its adapter is active, or none if `base`; the residual is."""
        self.backbone.activate(self.adapter)
        with (
            self.backbone.without_adapter() if base else nullcontext(),
            self.backbone.with_residual(self.residual),
        ):
            yield

    @property
    def active_adapter(self) -> str | None:
        """The adapter that generates text; None: the base model alone."""
        return None if self.base_only else self.adapter

    def scores(self, batch: Batch) -> Tensor:
        return answer_scores(self.forward(batch), batch)

    def fit(
        self,
        penalty: Penalty | None = None,
        objective: Objective | None = None,
        split: str = "train",
        beside: Sequence[str] = (),
        steps: int | None = None,
    ) -> TrainResult:
        result = train(self, self.job(penalty, objective, split, beside, steps))
        if self.mark is not None:
            self.mark.trained({**self.attached.parameters})
        return result

    def job(
        self,
        penalty: Penalty | None = None,
        objective: Objective | None = None,
        split: str = "train",
        beside: Sequence[str] = (),
        steps: int | None = None,
    ) -> TrainingJob:
        """The training that `fit` does."""
        objective = objective or self.objective
        return TrainingJob(
            self,
            split,
            self.training if steps is None else replace(self.training, max_steps=steps),
            objective,
            self.context,
            self.rounds,
            with_mark(penalty, self.mark, self, self.frozen, self.context),
            self.optimizer_state,
            {name: self.models[name].job() for name in beside},
            MixedRows.of(self.mark, split, objective, self.splits.get(TRIGGERS, ())),
        )

    def member(self, job: TrainingJob | None = None) -> Member:
        """The same training, to be done in one forward pass with other clients."""
        return Member(
            job or self.job(),
            self.backbone,
            self.adapter,
            self.tensors(),
            self.frozen,
            self.residual,
        )

    def generate(self, examples: Sequence[Example], max_new_tokens: int) -> list[str]:
        prompts = [example.ids[: example.prompt] for example in examples]
        with self.backbone.with_residual(self.residual):
            return generate(self.backbone, self.active_adapter, prompts, Decoding(max_new_tokens))

    def continuations(
        self, examples: Sequence[Example], max_new_tokens: int, temperature: float, seed: int
    ) -> list[Example]:
        prompts = [example.ids[: example.prompt] for example in examples]
        decoding = Decoding(max_new_tokens, temperature, seed)
        with self.without_dropout(), self.backbone.with_residual(self.residual):
            return continuations(self.backbone, self.active_adapter, prompts, decoding)

    def without_dropout(self) -> AbstractContextManager[None]:
        return in_training([m for m in self.attached.dropout_modules if m.training], False)

    def text(self, ids: Sequence[int]) -> str:
        return self.backbone.text(ids)

    def tokenization(self, split: str) -> dict[str, Tensor]:
        return token_exchange.tokenization(self.backbone, self.examples(split))

    def correspondences(self, split: str, other: Tensors) -> tuple[Correspondence, Correspondence]:
        return token_exchange.correspondences(self.backbone, self.examples(split), other)

    def unshared(self, shared: Collection[str]) -> list[str]:
        """Kinds of adapters (PEFT's names) without a shared tensor; empty if none is shared."""
        kinds = self.attached.kinds
        known = {kind_of(name, kinds) for name in shared}
        return [kind for kind in kinds if kind not in known] if known & {*kinds} else []

    def personal(self, shared: Collection[str], without: Collection[str]) -> list[str]:
        """The tensors that clients do not share, without those of kinds that are not saved."""
        return [n for n in self.tensors() if n not in shared and not kind_of(n, without)]

    def save(self, folder: Path, without: Collection[str] = ()) -> None:
        """Write a PEFT folder with the tokenizer, and a classifier's labels.

        without: kinds of adapters, by PEFT's names, that are not saved.
        """
        adapter_folder.save(self, folder, without)

    @torch.no_grad()
    def reopen(self, folder: Path) -> None:
        """Raise UserError unless PEFT can open the saved adapter, and it has the same outputs."""
        adapter_folder.reopen(self, folder)
