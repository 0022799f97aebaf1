"""Owners' marks in a run: whose keys are read, what is refused, and what each learner is given."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from hanse.audit.ownership import key as owners
from hanse.audit.ownership import mark, triggers
from hanse.audit.ownership.key import OwnershipKey
from hanse.audit.ownership.mark import OwnersMark
from hanse.audit.ownership.settings import OwnershipSettings
from hanse.audit.ownership.share import FILE, pin
from hanse.errors import UserError
from hanse.experiment.assembly.dataset.client_examples import SERVER, Reader, SplitRows
from hanse.experiment.assembly.resources import adapter_settings
from hanse.experiment.part_kinds import spec_name
from hanse.experiment.schema import Experiment, build_algorithm, build_objective
from hanse.federation.algorithms.fedex_lora import FedExLoRA
from hanse.federation.algorithms.fedper import FedPer
from hanse.federation.algorithms.ffa_lora import FFALoRA
from hanse.federation.algorithms.flexlora import FlexLoRA
from hanse.federation.algorithms.flora import FLoRA
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.objective import Objective
from hanse.federation.method import Method
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.p_tuning import PTuning
from hanse.learners.injection.adapter import LORA_XS
from hanse.learners.training.marks import TRIGGERS
from hanse.tensors.low_rank import A, B

log = logging.getLogger(__name__)

REFACTORED = (FlexLoRA, FedExLoRA)  # whose delivered factors are others than those of the silos

# Adapters whose trained tensors are not those that a run saves, by PEFT's names.
NOT_DELIVERED = {LORA_XS: "LoRA's factors B·R and A", PTuning.kind: "what its encoder computes"}


class Owner(NamedTuple):
    """An owner who marks what it trains. experiment: with its own settings."""

    experiment: Experiment
    settings: OwnershipSettings
    key: OwnershipKey


@dataclass(frozen=True)
class Owners:
    """The owners on this machine, by client; the server's name is SERVER."""

    by_holder: Mapping[str, Owner] = field(default_factory=dict)

    def rows(self) -> Iterator[SplitRows]:
        """The trigger rows of all owners that have some."""
        for holder, (own, _, key) in self.by_holder.items():
            if key.triggers and holder != SERVER:
                kind, template = build_objective(own).example_kind, own.data.template
                rows = triggers.rows(key, kind, own.data.labels, template)
                yield SplitRows(Reader(holder), TRIGGERS, rows, kind, template, own.model)

    def mark(self, holder: str, learner: AdaptedModel) -> OwnersMark | None:
        """The mark that a holder's learner lays; raises UserError if it has no place there."""
        if holder not in self.by_holder:
            return None
        own, settings, key = self.by_holder[holder]
        algorithm = build_algorithm(own)
        _refuse_lost(key, learner, algorithm)
        averaged = holder != SERVER and algorithm.payload != "logits"
        return mark.laid(key, settings, learner.parameters(), averaged)

    def remarks(self, learner: AdaptedModel) -> list[str]:
        """Remarks on the marks. learner: with the trained tensors."""
        laid = {
            holder: mark.laid(key, settings, learner.parameters())
            for holder, (_, settings, key) in self.by_holder.items()
        }
        texts = []
        for holder, own in laid.items():
            others = [other for name, other in laid.items() if name not in (holder, SERVER)]
            texts += mark.crowded(own, others if holder != SERVER else []) + mark.remarks(own)
        server = self.by_holder.get(SERVER)
        if server is not None and server.key.triggers:
            texts.append(
                "ownership: the server has no rows of its own, so it lays its mark in tensors, and "
                "its trigger prompts are not learned."
            )
        return texts


def owners_of(
    experiment: Experiment, method: Method, settings: Mapping[str, Experiment], server: bool
) -> Owners:
    """The owners of a run; no model is loaded.

    settings: each client's experiment. server: whether the server's mark is laid here.
    Raises UserError for keys that cannot be read, and for marks that have no place.
    """
    found = {}
    if server and experiment.ownership is not None:
        _refuse_idle_server(experiment)
        found[SERVER] = _owner(experiment, experiment.ownership, "ownership")
    for name, own in settings.items():
        if own is not experiment and own.ownership is not None:
            found[name] = _owner(own, own.ownership, f"clients.{name}.ownership")
            _refuse_triggers(found[name], method, f"clients.{name}.ownership")
    return Owners(found)


def pin_keys(experiment: Experiment, clients: Path, names: Iterable[str]) -> None:
    """Bind a run to the keys of these clients; raises UserError for another key than it began with.

    clients: the folder of all clients' memories. No model is loaded.
    """
    for name in names:
        own, folder = experiment.for_client(name), clients / name
        settings = own.ownership
        if settings is not None and own is not experiment:
            pin(folder, owners.read(Path(settings.key).expanduser()))
        elif (folder / FILE).exists():
            log.warning(
                "%s marked what it trained in earlier rounds of this run, and now has no ownership,"
                " so that the mark fades: name its key again",
                name,
            )


def pin_servers_key(experiment: Experiment, folder: Path) -> None:
    """Bind a run in this folder to the server's key; raises UserError as `pin_keys` does."""
    if experiment.ownership is not None:
        pin(folder, owners.read(Path(experiment.ownership.key).expanduser()))


def unsuited(experiment: Experiment, key: OwnershipKey) -> str:
    """The reason for which a key cannot mark what an experiment trains; empty if none is known.

    Nothing is loaded, so that a mark may still find no place among the tensors of a model.
    """
    adapter = adapter_settings(experiment)
    if not adapter.injected:
        return (
            "the mark lies in trained tensors, and without an adapter there are none; choose an "
            "adapter, such as lora, or leave ownership out"
        )
    if key.place == "product" and not any(part.kind == Lora.kind for part in adapter.kinds):
        return (
            f"the key marks LoRA's products, and {type(adapter).__name__} has none; choose the "
            "adapter lora, or make a key with --place weights"
        )
    for part in adapter.kinds:
        if key.place == "weights" and part.kind in NOT_DELIVERED:
            return (
                f"the key marks tensors as they are, and {type(part).__name__} is delivered as "
                f"{NOT_DELIVERED[part.kind]}; choose another adapter, such as lora"
            )
    return _kept_or_restarted(build_algorithm(experiment), key)


def _kept_or_restarted(algorithm: Algorithm, key: OwnershipKey) -> str:
    """The reason for which an algorithm delivers no marked tensors; empty if none is known."""
    name = type(algorithm).__name__
    if isinstance(algorithm, FedPer):
        return (
            f"with {name} clients keep trained tensors for themselves, so that the adapter that is "
            "delivered lacks the mark; choose another algorithm, such as fedavg"
        )
    if isinstance(algorithm, FLoRA):
        return (
            f"{name} begins each round with other factors, and delivers B = 0 beside a change of "
            "the base; choose another algorithm, such as flexlora"
        )
    if algorithm.resizes_adapter:
        return (
            f"with {name} silos train parts of the adapter that grow, where a mark has no lasting "
            "place; choose another algorithm, such as fedavg"
        )
    of_factors = key.tensors == "*" or key.tensors.endswith((A, B))
    if isinstance(algorithm, REFACTORED) and key.place == "weights" and of_factors:
        return _other_factors(algorithm)
    if isinstance(algorithm, FFALoRA) and key.place == "weights" and key.tensors.endswith(A):
        return (
            f"the key marks LoRA's A, which {name} never trains; make a key with --place product, "
            "or choose another algorithm"
        )
    return ""


def _other_factors(algorithm: Algorithm) -> str:
    return (
        f"the key marks LoRA's A or B, and {type(algorithm).__name__} delivers other factors of "
        "the product than silos train; make a key with --place product, or choose another "
        "algorithm, such as fedavg"
    )


def _refuse_lost(key: OwnershipKey, learner: AdaptedModel, algorithm: Algorithm) -> None:
    """Raise UserError for a pattern of tensors that the delivered adapter has otherwise.

    They are factors that are replaced by others, and tensors that are saved and never trained.
    """
    if key.place != "weights":
        return
    factors = [name for name in learner.parameters() if name.endswith((A, B))]
    if isinstance(algorithm, REFACTORED) and any(fnmatchcase(n, key.tensors) for n in factors):
        raise UserError(f"{key.owner:.80}: {_other_factors(algorithm)}.")
    fixed = [*learner.constants().tensors, *learner.attached.untrained]
    if found := sorted(name for name in fixed if fnmatchcase(name, key.tensors)):
        raise UserError(
            f"the key of {key.owner:.80} marks {key.tensors!r:.80}, which also names "
            f"{found[0]:.200}, and that is saved with the adapter and never trained; make a key "
            "whose --tensors names trained tensors alone."
        )


def _owner(experiment: Experiment, settings: OwnershipSettings, place: str) -> Owner:
    try:
        key = owners.read(Path(settings.key).expanduser())
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    if reason := unsuited(experiment, key):
        raise UserError(f"{place}: {reason}.")
    return Owner(experiment, settings, key)


def _refuse_idle_server(experiment: Experiment) -> None:
    """Raise UserError for a mark of a server that trains nothing."""
    if "server" not in build_algorithm(experiment).needs_public:
        raise UserError(
            f"ownership is the server's own mark, and with {spec_name(experiment.algorithm)} the "
            "server trains nothing; let a client lay it (clients.<name>.ownership), or choose an "
            "algorithm whose server trains, such as fedcollm."
        )


def _refuse_triggers(owner: Owner, method: Method, place: str) -> None:
    """Raise UserError for trigger rows in a training that cannot learn them."""
    if not owner.key.triggers:
        return
    objective = build_objective(owner.experiment)
    if objective.rolls_out or type(objective).with_targets is not Objective.with_targets:
        raise UserError(
            f"{place}: the key has triggers, and {type(objective).__name__} learns from what it "
            "makes of each row, not from secret answers; make a key without --triggers."
        )
    if objective.example_kind not in triggers.KINDS:
        raise UserError(
            f"{place}: the key has triggers, which are learned as text or as classes, and "
            f"{type(objective).__name__} learns {objective.example_kind}; make a key without "
            "--triggers."
        )
    for part in method.pipelines.upload.mechanisms:
        if part.protects_rows:
            raise UserError(
                f"{place}: the key has triggers, and {type(part).__name__} trains on the rows that "
                "it hides alone; make a key without --triggers, whose mark in tensors needs no row."
            )
