"""The attack of a simulation, and the conditions under which it means anything."""

from hanse.audit.attack import Attack
from hanse.errors import UserError
from hanse.experiment.part_kinds import ATTACK
from hanse.experiment.schema import Experiment
from hanse.federation.method import Method


def build_attack(experiment: Experiment) -> Attack | None:
    """Build the attack, with its settings; None if all clients are honest."""
    if experiment.attack is None:
        return None
    part: Attack = ATTACK.build(experiment.attack)
    return part


def refuse_unattackable(experiment: Experiment, method: Method) -> None:
    """Raise UserError for a run whose updates an attack cannot replace by others."""
    attack = build_attack(experiment)
    if attack is None:
        return
    name, algorithm = attack.name, type(method.algorithm).__name__
    clients = experiment.participant_names
    attack.require(len(attack.names(clients)), len(clients))
    if method.aggregator.sums_only or method.aggregator.has_phases:
        rule = type(method.aggregator).__name__
        raise UserError(
            f"attack.{name} replaces updates on their way, and those of {rule} are sealed; "
            "choose the aggregator mean, or leave attack out. (What a sum takes in from a hostile "
            "client is what the mean does.)"
        )
    if method.algorithm.payload != "change":
        raise UserError(
            f"attack.{name} makes changes of the model, but with {algorithm} clients send "
            f"{method.algorithm.payload}; choose an algorithm whose clients send changes, such as "
            "fedavg."
        )
    uploads = [p for p in method.all_pipelines if p.direction == "upload" and p.codecs]
    if uploads:
        raise UserError(
            f"attack.{name} makes changes of the model, and {type(uploads[0].codecs[0]).__name__} "
            "encodes them before they leave a client; leave it out of compression.upload."
        )


def remarks(experiment: Experiment) -> list[str]:
    """A remark that names the hostile clients, if there are any."""
    attack = build_attack(experiment)
    if attack is None:
        return []
    names = attack.names(experiment.participant_names)
    verb = "is hostile and sends" if len(names) == 1 else "are hostile and send"
    return [
        f"{', '.join(names):.300} {verb} what the attack {attack.name} says, knowing the "
        "honest clients' updates; their own rows are trained on, but count for nothing else."
    ]
