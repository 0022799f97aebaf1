"""A frozen base model with its tokenizer and the adapters that are attached to it."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from peft.functional import set_adapter
from torch import Tensor
from torch.nn import Parameter

from hanse.errors import UserError
from hanse.federation.constants import Constants
from hanse.learners.caching import frozen_layers
from hanse.learners.caching.activations import Activations
from hanse.learners.caching.frozen_layers import FrozenLayers
from hanse.learners.injection import constants, inject, virtual_tokens
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.attached_adapter import (
    AttachedAdapter,
    in_training,
    keeping_gradients,
)
from hanse.learners.kernels import lora, unpadded
from hanse.learners.kernels.unpadded import Rows
from hanse.learners.models import quantization
from hanse.learners.models.head import Head, Reading
from hanse.learners.models.heads.language_model import LanguageModel
from hanse.learners.models.layers import frozen_depth
from hanse.learners.models.model_files import hub_id
from hanse.learners.models.precision import ComputeMode
from hanse.learners.models.residual import Residual
from hanse.learners.models.start_weights import StartWeights
from hanse.learners.training.batches import to_device
from hanse.observability.paired_timing import Measurement
from hanse.tensors.named import Tensors

DEFAULT_LENGTH = 512  # tokens
NO_ADAPTER = ""  # names the base model alone among the adapters


@dataclass
class Backbone:
    """One base model in memory, shared by all learners on this machine that use it.

    fresh: modules that had no weights on disk, such as a new head; every adapter trains them.
    needs_padding: the model reads rows of one width only.
    max_clients: the most clients that memory has held in one forward pass; None: not known yet.
    labels: the word of each label, in the order of a classifier's outputs.
    """

    name: str
    model: Any  # PeftModel once an adapter is attached
    tokenizer: Any
    device: torch.device
    compute_mode: ComputeMode
    head: Head = field(default_factory=LanguageModel)
    fresh: tuple[str, ...] = ()
    activation_cache: bool = True
    needs_padding: bool = True
    measurement: Measurement = Measurement()  # noqa: RUF009 (it is frozen)
    max_clients: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    start_weights: StartWeights | None = None  # if its weights change in place
    adapters: dict[str, AttachedAdapter] = field(
        default_factory=lambda: {NO_ADAPTER: AttachedAdapter.none()}
    )  # by name
    _active: str = ""  # the name of an adapter
    _residual: Residual | None = None  # the last one that was applied
    _applied_residual: Residual | None = None  # within its context
    _frozen_layers: dict[int, FrozenLayers | None] = field(default_factory=dict)  # by depth
    _activations: Activations = field(default_factory=Activations)

    @property
    def bf16(self) -> bool:
        """True if its weights and products are in bfloat16."""
        return self.compute_mode.bf16

    def serves(self, example_kind: str, classes: int) -> bool:
        """True if its head reads such examples and, if it has outputs for classes, as many."""
        fits = self.head.options.get("num_labels", classes) == classes
        return example_kind in self.head.reads and bool(fits)

    def attach(self, settings: Adapter, seed: int) -> str:
        """Attach another adapter, and return its name."""
        task, fresh = self.head.task, self.fresh
        with self._keeping_gradients():
            self.model, attached = inject.attach(self.model, settings, seed, task, fresh)
        for config in attached.configs:  # PEFT has written the model's folder on this machine
            config.base_model_name_or_path = hub_id(self.name)
        attached.set_gradients()
        if self.compute_mode.products != "plain":
            lora.use(self.model.modules())
        self.adapters[name := attached.name] = attached
        self._active = ""
        self.model.eval()  # a new adapter is in training mode, whose dropout makes scores random
        if virtual_tokens.are_cached(self.model, name):
            with self.autocast():
                virtual_tokens.refuse_unread(self.activate(name), settings)
        if self.activation_cache and not self.model.config.is_encoder_decoder:
            attached.frozen_depth = depth = frozen_depth(self.model, attached.parameters.values())
            if depth and depth not in self._frozen_layers:
                inputs = self.autocast, self.positions, self._activations, not self.head.causal
                self._frozen_layers[depth] = frozen_layers.detect(self.model, depth, *inputs)
            attached.needs_padding |= self._frozen_layers.get(depth) is not None
        return name

    def detach(self, adapter: str) -> None:
        """Take an adapter out, with its parts, and free its memory."""
        for part in self.adapters.pop(adapter).parts.values():
            self.detach(part)
        with self._keeping_gradients():
            self.model = inject.detach(self.model, adapter)
        self._active, self._residual = "", None

    def set_initial(self, adapter: str, tensors: Tensors) -> None:
        """Set an adapter's tensors, and remember them as its initial ones."""
        attached = self.adapters[adapter]
        for name, parameter in attached.parameters.items():
            parameter.data.copy_(tensors[name])
        attached.remember_initial()

    def initial(self, adapter: str) -> Tensors:
        """An adapter's tensors before any training, on the CPU."""
        return {name: tensor.cpu() for name, tensor in self.adapters[adapter].initial.items()}

    def constants(self, adapter: str) -> Constants:
        """An adapter's tensors that are not parameters, on the CPU."""
        live = constants.live(self.model, adapter)
        whole = Constants.of({name: tensor.detach().cpu() for name, tensor in live.items()})
        self.adapters[adapter].constants_digest = whole.digest
        return whole

    def has_constants(self, adapter: str, digest: str) -> bool:
        """True if an adapter's constants are known to have this hash."""
        return self.adapters[adapter].constants_digest == digest

    def put_constants(self, adapter: str, whole: Constants) -> None:
        """Set an adapter's constants; raises UserError unless names and shapes are the same."""
        constants.put(self.model, adapter, whole.tensors)
        self.adapters[adapter].constants_digest = whole.digest

    @torch.no_grad()
    def read_constants(self, adapter: str, tensors: Tensors) -> None:
        """Set an adapter's constants from tensors on disk; raises UserError if they do not fit."""
        constants.read(self.model, self.adapters[adapter], tensors)
        self.adapters[adapter].constants_digest = ""

    def parameters(self, adapter: str) -> dict[str, Parameter]:
        """The live parameters of one adapter, by the names that PEFT gives them on disk."""
        return self.adapters[adapter].parameters

    def max_length(self, wanted: int | None) -> int:
        """The most tokens of an example; raises UserError if the model cannot read as many."""
        limit = self.positions
        if wanted is not None and limit is not None and wanted > limit:
            raise UserError(
                f"model.max_length is {wanted}, but {self.name} reads at most {limit} tokens; "
                "lower it."
            )
        return wanted or min(DEFAULT_LENGTH, limit or DEFAULT_LENGTH)

    @property
    def positions(self) -> int | None:
        """The most tokens that the model can read at once; None if there is no limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def vocabulary(self) -> int | None:
        """The number of tokens that the model has embeddings of; None if it has none."""
        return getattr(self.model.config.get_text_config(), "vocab_size", None)

    @property
    def weights(self) -> int:
        """The number of the base model's weights."""
        added = {id(p) for attached in self.adapters.values() for p in attached.every}
        return sum(quantization.count(p) for p in self.model.parameters() if id(p) not in added)

    def text(self, ids: Sequence[int]) -> str:
        """The text of these tokens, without special tokens."""
        decode = self.tokenizer.decode
        return str(decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def activate(self, adapter: str) -> PeftModel:
        """Activate this adapter and no other, and return the model."""
        model: PeftModel = self.model
        if adapter not in (self._active, NO_ADAPTER):
            with self._keeping_gradients():  # a loss may depend on two adapters
                model.set_adapter(adapter)
                if len(self.adapters[adapter].configs) > 1:
                    set_adapter(model, adapter)  # layers of all kinds
            self._active = adapter
        return model

    def _keeping_gradients(self) -> AbstractContextManager[None]:
        """After this context, the same parameters of all adapters get gradients as before."""
        return keeping_gradients(p for own in self.adapters.values() for p in own.every)

    def rows(
        self, adapter: str, lengths: Sequence[int], width: int, clients: int = 1
    ) -> Rows | None:
        """The layout of a batch without its padding; None if it keeps its padding.

        The arguments are those of `unpadded.layout`.
        """
        padded = self.needs_padding or self.adapters[adapter].needs_padding
        return None if padded else unpadded.layout(lengths, width, clients)

    def logits(
        self, ids: Tensor, at: Tensor, lengths: Sequence[int] = (), rows: Rows | None = None
    ) -> Tensor:
        """(N, classes) logits in float32, with the adapters that are active.

        ids: (R, T) tokens; at: (N,) flattened (R·T) positions; both on the host.
        lengths: tokens of each row; if it is empty, no row has padding.
        rows: the layout of the batch without its padding; None: the model gets it padded.
        """
        if rows is not None:
            ids, at = ids.flatten()[rows.tokens][None], rows.places(at)
            lengths = ()
        tokens = torch.tensor(lengths or [ids.shape[1]] * len(ids))
        ids, at, sizes = to_device((ids, at, tokens), self.device)
        with self.autocast(), unpadded.applied(self.model, rows) if rows else nullcontext():
            return self.head.logits(self.model, ids, at, sizes).float()

    def of_layers(self, read: Reading, ids: Tensor, at: Tensor, lengths: Sequence[int]) -> Tensor:
        """Tensors that the head reads from the layers, in float32; arguments as of `logits`."""
        ids, at, sizes = to_device((ids, at, torch.tensor(lengths)), self.device)
        with self.autocast():
            return read(self.model, ids, at, sizes).float()

    def with_cached_layers(
        self, adapter: str, ids: Tensor, lengths: Sequence[int]
    ) -> AbstractContextManager[None]:
        """Skip the frozen layers below an adapter in a forward pass of exactly these rows.

        ids: (R, T) tokens on the host, padded on the right; lengths: tokens of each row, which may
            be 0.
        """
        layers = self._frozen_layers.get(self.adapters[adapter].frozen_depth)
        return layers.skipped(ids, lengths) if layers else nullcontext()

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Within this context, no adapter is active."""
        adapted = isinstance(self.model, PeftModel)
        with self._keeping_gradients(), inject.disabled(self.model) if adapted else nullcontext():
            yield

    @contextmanager
    def for_generation(self, adapter: str | None) -> Iterator[Any]:
        """Yield the model that generates text with this adapter; None: the base model alone."""
        if adapter is None:
            with self.without_adapter():
                adapted = isinstance(self.model, PeftModel)
                yield self.model.get_base_model() if adapted else self.model
        elif virtual_tokens.are_cached(self.model, adapter):
            yield self.activate(adapter)  # PEFT's own model puts them into the cache
        else:
            yield self.activate(adapter).get_base_model()

    def with_dropout(self, adapter: str) -> AbstractContextManager[None]:
        """Within this context, an adapter's dropout is on; the frozen base's own stays off."""
        self.activate(adapter)
        return in_training(self.adapters[adapter].dropout_modules, True)

    @contextmanager
    def with_residual(self, residual: Tensors) -> Iterator[None]:
        """Within this context, the base's weights are changed by a residual, if it has tensors.

        In a nested context, the inner one alone holds: learners that share the base have their own.
        """
        outer = self._applied_residual
        if (outer is None and not residual) or (outer is not None and outer.tensors is residual):
            yield
            return
        inner = self._prepared(residual) if residual else None
        self._applied_residual = inner
        try:
            with (
                outer.paused() if outer else nullcontext(),
                inner.applied() if inner else nullcontext(),
            ):
                yield
        finally:
            self._applied_residual = outer

    def _prepared(self, residual: Tensors) -> Residual:
        """A residual on the model's device; the last one is kept there."""
        if self._residual is None or self._residual.tensors is not residual:
            dtype = torch.bfloat16 if self.bf16 else torch.float32
            self._residual = Residual(self.model, residual, dtype, self.device)
        return self._residual

    def autocast(self) -> AbstractContextManager[Any]:
        """Within this context, matrix products are in bfloat16 if the backbone's weights are."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)
