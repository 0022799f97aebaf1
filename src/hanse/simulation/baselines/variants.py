"""Variants of a baseline comparison: ordinary runs with settings derived from one experiment.

All variants have the experiment's rounds, division, model, adapter, and learning rate with its
schedule. What differs is whose rows are trained on, and how many examples a round has:

federated                the experiment itself
alone-<client>           one client, as long as it trains in the federation
alone-<client>-longer    one client, as long as all clients together
centralised              all rows in one place, in as many steps as a client does, each on the
                         batches of all clients of a round at once
centralised-small-batch  all rows in one place, at the batch size of one client

An optimizer begins afresh in each round unless `train.optimizer_state` is `keep`. Since all
variants have the same rounds, it is reset as often in each: between two resets a client alone and
the centralised variant make as many updates as a client of the federation does. The longer variants
and the small batch make as many as all clients together, which is more updates in a row.

How long is counted in examples, so that it means the same where a round is measured in steps and
where it is measured in passes: with S steps in each of R rounds, a client alone does S steps a
round, and n·S as long as all n together. A round is rounded up to whole steps.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hanse.errors import UserError
from hanse.experiment.schema import Experiment
from hanse.federation.client_sampling import taking_part
from hanse.learners.training.settings import TrainingSettings

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
    """One run of a baseline comparison; client: who trains alone, None if all rows are used."""

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
    """One seed's variants, in the order in which they are run.

    sizes: training rows of each client. home: the folder that holds the runs' folders.
    """
    trains = {name: experiment.for_client(name).train for name in sizes}
    own = {
        name: trains[name].examples_per_round(rows) for name, rows in sizes.items()
    }  # examples of a round
    asked = taking_part(len(experiment.client_names), experiment.fraction_train)
    together = round(sum(own.values()) * asked / len(sizes))
    wide = experiment.train.gradient_accumulation_steps * asked
    joint = replace(experiment.train, gradient_accumulation_steps=wide)
    plain: list[tuple[str, str | None, TrainingSettings]] = [
        *(("alone", n, lasting(trains[n], own[n], rows)) for n, rows in sizes.items()),
        *(("alone-longer", n, lasting(trains[n], together, rows)) for n, rows in sizes.items()),
    ]
    rows = sum(sizes.values())
    plain.append(("centralised", None, lasting(joint, together, rows)))
    plain.append(("centralised-small-batch", None, lasting(experiment.train, together, rows)))
    values = experiment.resolved()
    values["evaluation"] = {**values["evaluation"], "test": True}  # scores the base model, too
    found = [Variant("federated", None, _placed(values, seed, home / "federated"))]
    for kind, client, train in plain:
        changed = _plain(values, train, client)
        found.append(Variant(kind, client, _placed(changed, seed, home / name_of(kind, client))))
    return found


def lasting(train: TrainingSettings, examples: int, rows: int) -> TrainingSettings:
    """These settings for rounds of so many examples each, drawn from so many rows."""
    if train.max_steps is None:
        return replace(train, num_train_epochs=examples / rows)
    return replace(train, max_steps=math.ceil(examples / train.batch))


def refuse(experiment: Experiment) -> None:
    """Raise UserError for an experiment of which no baseline comparison can be made."""
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


def _plain(values: dict[str, Any], train: TrainingSettings, client: str | None) -> dict[str, Any]:
    """Settings of plain fine-tuning: one client or all rows, nothing combined.

    A federated algorithm has nothing to do there: a proximal term or a server's optimizer would
    only disturb what the variant stands for.
    """
    clients = {name: dict(over) for name, over in values["clients"].items()}
    if client in clients:
        clients[client].pop("train", None)  # is in `train` already
    return {
        **values,
        "fraction_train": 1.0,
        "algorithm": "fedavg",
        "aggregator": "mean",
        "train": asdict(train),
        "clients": clients,
        "participants": None if client is None else [client],
        "data": {**values["data"], "pooled": client is None},
        "evaluation": {**values["evaluation"], "test": "final", "validate_every": 0},
    }


def _placed(values: dict[str, Any], seed: int, folder: Path) -> Experiment:
    """The experiment of one variant, with its seed, name and folder."""
    name = f"{values['name']}-{folder.name}"
    own = {"seed": seed, "name": name, "output_dir": str(folder)}
    return Experiment.model_validate({**values, **own})
