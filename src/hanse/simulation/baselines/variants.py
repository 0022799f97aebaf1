"""Variants of a baseline comparison: ordinary runs with settings derived from one experiment.

All variants have the experiment's rounds, division, and learning rate with its schedule. They have
its model and adapter, but for a client alone, which has its own. They differ in the clients whose
rows they train on, and in the examples of a round:

federated                the experiment itself
alone-<client>           one client, as long as it trains in the federation
alone-<client>-longer    one client, as long as all clients together
centralised              all rows in one place, in as many steps as a client does, each on the
                         batches of all clients of a round at once
centralised-small-batch  all rows in one place, at the batch size of one client

An optimizer starts fresh in each round unless `train.optimizer_state` is `keep`. All variants have
the same rounds, so their optimizers are reset equally often. Between two resets a client alone and
the centralised variant make as many updates as a client of the federation does. The longer variants
and the small batch make as many as all clients together, which is more updates in a row.

The length of training is counted in examples, which compares rounds that are measured in steps with
rounds that are measured in passes. With S steps in each round, a client alone does S steps in a
round, and n·S steps for "as long as all n clients together". A round is rounded up to whole steps.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hanse.errors import UserError
from hanse.experiment.part_kinds import ALGORITHM, OBJECTIVE
from hanse.experiment.schema import Experiment, build_algorithm
from hanse.federation.client_sampling import taking_part
from hanse.learners.training.settings import TrainingSettings

log = logging.getLogger(__name__)

# Kinds of variants, in the order of the report, each with its description in one phrase.
KINDS = {
    "federated": "all clients together, each training on its own rows",
    "alone": "one client alone, as long as it trains in the federation",
    "alone-longer": "one client alone, as long as all clients together",
    "centralised": "all rows in one place, in as many steps as a client's, on all clients' batches",
    "centralised-small-batch": "all rows in one place, as many examples at a client's batch size",
}


@dataclass(frozen=True)
class Variant:
    """One run of a baseline comparison. client: the one that trains alone; None: all rows."""

    kind: str
    client: str | None
    experiment: Experiment

    @property
    def name(self) -> str:
        """The name of its folder."""
        return name_of(self.kind, self.client)

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return Path(str(self.experiment.output_dir))

    @property
    def what(self) -> str:
        """The variant in one phrase."""
        return KINDS[self.kind].replace("one client alone", f"{self.client} alone")


def name_of(kind: str, client: str | None) -> str:
    """A variant's name: its kind, with the client's name in it if there is one."""
    return kind if client is None else f"alone-{client}{kind.removeprefix('alone')}"


def variants(
    experiment: Experiment, sizes: Mapping[str, int], seed: int, home: Path
) -> list[Variant]:
    """One seed's variants, in the order of their runs.

    sizes: training rows of each client. home: the folder of the runs' folders.
    """
    values = experiment.resolved()
    values["evaluation"] = {**values["evaluation"], "test": True}  # scores the base model, too
    _remark_on_unlike(experiment)
    result = [Variant("federated", None, _placed(values, seed, home / "federated"))]
    for kind, client, train in _baseline_training(experiment, sizes):
        changed = _plain(_of_client(experiment, client), train, client)
        placed = _placed(changed, seed, home / name_of(kind, client))
        result.append(Variant(kind, client, placed))
    return result


def _baseline_training(
    experiment: Experiment, sizes: Mapping[str, int]
) -> list[tuple[str, str | None, TrainingSettings]]:
    """Kind, client and training settings of each variant without federation."""
    train = {name: experiment.for_client(name).train for name in sizes}
    examples = {name: train[name].examples_per_round(rows) for name, rows in sizes.items()}
    clients = taking_part(len(experiment.client_names), experiment.fraction_train)
    together = round(sum(examples.values()) * clients / len(sizes))
    accumulated = experiment.train.gradient_accumulation_steps * clients
    joint = replace(experiment.train, gradient_accumulation_steps=accumulated)
    all_rows = sum(sizes.values())
    return [
        *(("alone", n, lasting(train[n], examples[n], rows)) for n, rows in sizes.items()),
        *(("alone-longer", n, lasting(train[n], together, rows)) for n, rows in sizes.items()),
        ("centralised", None, lasting(joint, together, all_rows)),
        ("centralised-small-batch", None, lasting(experiment.train, together, all_rows)),
    ]


def lasting(train: TrainingSettings, examples: int, rows: int) -> TrainingSettings:
    """These settings with rounds of a number of examples, drawn from a number of rows."""
    if train.max_steps is None:
        return replace(train, num_train_epochs=examples / rows)
    return replace(train, max_steps=math.ceil(examples / train.batch))


def refuse(experiment: Experiment) -> None:
    """Raise UserError for an experiment that allows no baseline comparison."""
    names = experiment.client_names
    if len(names) < 2:
        raise UserError(
            "a baseline comparison compares clients that train together with each alone, but "
            "there is one client; set num_clients to 2 or more."
        )
    if experiment.participants is not None or experiment.data.pooled:
        raise UserError(
            "participants and data.pooled are set by a baseline comparison for each of its runs; "
            "take them out of the experiment."
        )
    both = {name_of("alone", n) for n in names} & {name_of("alone-longer", n) for n in names}
    if both:
        name = min(both).removeprefix("alone-")
        raise UserError(
            f"a client of a baseline comparison cannot be called {name!r}; give it another name."
        )
    if not experiment.data.test:
        raise UserError(
            "a baseline comparison compares scores on test rows, but data.test is 0; hold some "
            "out, such as data.test=0.1."
        )


def _of_client(experiment: Experiment, client: str | None) -> dict[str, Any]:
    """The settings of the experiment, with the model that a client would keep for itself.

    None: the experiment's own model. A client alone trains its own model and adapter; where an
    algorithm lets it keep a model beside the trained one, such as fedkd's mentor, it trains that.
    """
    values = experiment.resolved()
    if client is None:
        return values
    own = experiment.for_client(client).resolved()
    kept = own["models"].get(build_algorithm(experiment).keeps)
    if kept is None:
        kept = {**own["model"], "adapter": own["adapter"]}
    sections = {"model": {n: kept[n] for n in own["model"]}, "adapter": kept["adapter"]}
    clients = {name: dict(over) for name, over in values["clients"].items()}
    for over in clients.values():  # of the others, who take no part, and of this one
        over.pop("model", None)
        over.pop("adapter", None)
    return {**values, **sections, "clients": clients}


def _remark_on_unlike(experiment: Experiment) -> None:
    """Say that scores on the test rows are of different models, if they are."""
    if keeps := build_algorithm(experiment).keeps:
        log.warning(
            "a client alone trains models.%s, which it would keep; the federated and centralised "
            "scores on test rows are of `model`",
            keeps,
        )
    name = experiment.model.model_name_or_path
    models = {n: experiment.for_client(n).model.model_name_or_path for n in experiment.client_names}
    unlike = [f"{client} {path}" for client, path in models.items() if path != name]
    if unlike:
        log.warning(
            "a client alone trains its own model (%s); the federated and centralised scores on "
            "test rows are of %s",
            *(", ".join(unlike[:3]) + (" and so on" if unlike[3:] else ""), name),
        )


def _plain(values: dict[str, Any], train: TrainingSettings, client: str | None) -> dict[str, Any]:
    """Settings of plain fine-tuning, of one client or of all rows.

    There is nothing to combine and nothing travels, so the algorithm is fedavg without codecs and
    without a mechanism of privacy: a proximal term, a server's optimizer, rounding or noise would
    only disturb the baseline. An algorithm that trains without an adapter stays.
    """
    models, algorithm = _of_objective(values), values["algorithm"]
    clients = {name: dict(over) for name, over in values["clients"].items()}
    for over in clients.values():
        over.pop("compression", None)
        over.pop("links", None)
        over.pop("device", None)
        if "models" in over:
            over["models"] = {n: own for n, own in over["models"].items() if n in models}
    if client in clients:
        clients[client].pop("train", None)  # `train` has it already
    return {
        **values,
        "fraction_train": 1.0,
        "algorithm": algorithm if ALGORITHM.build(algorithm).whole_model else "fedavg",
        "models": models,
        "aggregator": "mean",
        "compression": {},
        "privacy": None,
        "links": None,
        "device": None,
        "attack": None,
        "train": asdict(train),
        "clients": clients,
        "participants": None if client is None else [client],
        "data": {**values["data"], "pooled": client is None, "public": None},
        "evaluation": {**values["evaluation"], "test": "final", "validate_every": 0},
    }


def _of_objective(values: dict[str, Any]) -> dict[str, Any]:
    """The models beside the trained one that the objective uses; those of the algorithm go."""
    names = OBJECTIVE.build(values["objective"]).models
    return {name: settings for name, settings in values["models"].items() if name in names}


def _placed(values: dict[str, Any], seed: int, folder: Path) -> Experiment:
    """The experiment of one variant, with its seed, name and folder."""
    name = f"{values['name']}-{folder.name}"
    own = {"seed": seed, "name": name, "output_dir": str(folder)}
    return Experiment.model_validate({**values, **own})
