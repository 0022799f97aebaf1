"""The reasons of a silo's policy against a job: its settings, its base model, its rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hanse.audit.ownership.key import read
from hanse.deployment.silo.job import Job, RowCounts
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.privacy_refusals import privacy_refusals, row_privacy_refusals
from hanse.experiment.assembly.marks import unsuited
from hanse.experiment.assembly.method import build_method
from hanse.experiment.loading import outside_code
from hanse.experiment.part_kinds import NAMED, TASK, spec_name
from hanse.experiment.schema import Experiment, build_algorithm, build_tasks
from hanse.learners.models.emulators.record import FILE as EMULATOR


def above(count: int, step: int) -> int:
    """Round a count up, so that neither a limit nor a message reveals the exact one."""
    return step * -(-count // step)


def refusal(name: str, reasons: Iterable[str]) -> str:
    """The sentence with which a silo refuses a job for all these reasons; "" without any."""
    text = "; ".join(reasons)
    return f"{name} refuses this job: {text}." if text else ""


def settings_refusals(policy: Policy, job: Job) -> Iterator[str]:
    """The reasons of a policy against the settings of a job."""
    yield from _parts(policy, job.experiment)
    yield from _work(policy, job.experiment, 0)
    if job.cohort < policy.min_cohort:
        yield f"{job.cohort} silos train in a round, and it asks for {policy.min_cohort}"
    yield from _sums(policy, job.experiment)
    if build_method(job.experiment).sends_files and not policy.max_file_gb:
        yield "its parts send files, and by policy.max_file_gb none are taken"
    if job.experiment.compression.collect and not policy.collect:
        yield (
            "its server would keep each silo's updates (compression.collect), which needs "
            "policy.collect: true"
        )
    yield from _marks(policy, job)
    if build_algorithm(job.experiment).plugged_into and policy.emulators == "refuse":
        name = spec_name(job.experiment.algorithm)
        yield f"the algorithm {name} trains an emulator, which policy.emulators refuses"
    yield from privacy_refusals(policy, job)


def code_refusals(name: str, experiment: Experiment, code: Mapping[str, object]) -> Iterator[str]:
    """A sentence for each file of a part that differs from the server's.

    name: the silo's. code: the SHA-256 of the server's files, as `outside_code` gives them.
    """
    for part, digest in outside_code(experiment).items():
        if code.get(part) != digest:
            yield (
                f"{name} has another file for {part} than the server: its SHA-256 is "
                f"{digest[:16]}… here, and {str(code.get(part))[:16]}… there; bring the same."
            )


def model_refusals(policy: Policy, experiment: Experiment, model_hash: str | None) -> Iterator[str]:
    """The reasons of a policy against a base model. model_hash: None if it is not here."""
    model = f"the base model {experiment.model.model_name_or_path!r:.80}"
    yield from _hash_refusals(policy, model, model_hash)


def named_model_refusals(
    policy: Policy, experiment: Experiment, hashes: Mapping[str, str | None]
) -> Iterator[str]:
    """The same against models beside the base model. hashes: of each, by name."""
    for name, model_hash in hashes.items():
        path = experiment.models[name].model_name_or_path
        yield from _hash_refusals(policy, f"models.{name}, {path!r:.80},", model_hash)


def delivery_refusals(policy: Policy, model_hash: str, here: bool) -> Iterator[str]:
    """The reasons of a policy against the base model that a server sends.

    model_hash: of that model. here: whether it is on this machine, and need not be sent.
    """
    yield from _hash_refusals(policy, "the server's base model", model_hash)
    if policy.delivered_models == "refuse" and not here:
        yield (
            f"the server's base model, of the hash {model_hash}, is not on its machine, and by "
            "policy.delivered_models it is sent none; name a copy by model in silo.yaml, or set "
            "policy.delivered_models to allow"
        )


def emulator_refusals(policy: Policy, emulator: bool) -> Iterator[str]:
    """The reasons of a policy against a base model that is an emulator, or is none."""
    if policy.emulators == "refuse" and emulator:
        yield f"its base model is an emulator ({EMULATOR}), which policy.emulators refuses"
    if policy.emulators == "require" and not emulator:
        yield f"its base model is no emulator (no {EMULATOR}), and policy.emulators requires one"


def _hash_refusals(policy: Policy, model: str, model_hash: str | None) -> Iterator[str]:
    if model_hash is None:
        yield f"{model} is not on its machine"
    elif policy.models and model_hash not in policy.models:
        yield f"{model} has the hash {model_hash}, which it does not allow"


def _parts(policy: Policy, experiment: Experiment) -> Iterator[str]:
    """Reasons against parts; parts from outside the package were checked when the job was read."""
    for kind in NAMED:
        allowed = getattr(policy, kind.policy) if kind.policy and kind is not TASK else None
        for name in map(spec_name, kind.specs(experiment)):
            if allowed is not None and name not in allowed:
                yield f"the {kind.setting} {name} is not among {', '.join(allowed)}"
    yield from _numbers(policy, experiment)
    for name in _adapters(experiment):
        if name == "from" and "from" not in (policy.adapters or ()):
            yield "the adapter is to go on from a folder of this machine that the server names"
        elif policy.adapters is not None and name not in policy.adapters:
            yield f"the adapter {name} is not among {', '.join(policy.adapters)}"
    tasks = build_tasks(experiment)
    names = map(spec_name, experiment.evaluation.tasks or tasks)
    for name, task in zip(names, tasks.values(), strict=True):
        if not task.test_only and name not in policy.tasks:
            yield f"the task {name} is not among {', '.join(policy.tasks) or 'those allowed'}"


def _numbers(policy: Policy, experiment: Experiment) -> Iterator[str]:
    """Reasons against numbers that must leave beside the tensors of an update."""
    needed: dict[str, Sequence[str]] = {
        f"the algorithm {spec_name(experiment.algorithm)}": build_algorithm(experiment).numbers
    }
    for mechanism in build_method(experiment).pipelines.upload.mechanisms:
        needed[type(mechanism).__name__] = mechanism.numbers
    for part, names in needed.items():
        for name in names:
            if not policy.allows_number(name):
                yield (
                    f"{part} needs the number {name} of each update, which policy.metrics does not "
                    "let leave"
                )


def _sums(policy: Policy, experiment: Experiment) -> Iterator[str]:
    """Reasons against a rule that sees sums only, or against one that does not."""
    method, wanted = build_method(experiment), policy.secure_sums
    rule, name = method.aggregator, spec_name(experiment.aggregator)
    if not rule.sums_only:
        if wanted.required:
            yield (
                f"the aggregator {name} reads single updates, and policy.secure_sums requires one "
                "that sees sums only, such as secagg"
            )
        return
    for number in method.shown_numbers:
        if not policy.allows_number(number):  # else the sum shows that of the silos that report it
            yield (
                f"the aggregator {name} adds up the {number} of all silos, which policy.metrics "
                f"does not let leave; allow {number} there, or the aggregator mean"
            )
    for setting in ("colluders", "security"):
        least, given = getattr(wanted, setting), getattr(rule, setting, None)
        if least is not None and (given is None or given < least):
            yield (
                f"the aggregator {name} has {setting} {given}, and policy.secure_sums asks for at "
                f"least {least:g}"
            )
    if wanted.complete and getattr(rule, "neighbours", None) != "complete":
        yield (
            f"the aggregator {name} does not have neighbours: complete, which policy.secure_sums "
            "asks for"
        )


def _marks(policy: Policy, job: Job) -> Iterator[str]:
    """Reasons against a mark of the server, and against a job in which this silo's has no place."""
    if job.server_marks and policy.marks == "refuse":
        yield "its server marks the model as its own (ownership), which policy.marks refuses"
    for over in job.experiment.clients.values():
        if "ownership" in over and policy.marks == "require":
            key = read(Path(over["ownership"]["key"]))
            if reason := unsuited(job.experiment, key):
                yield f"policy.marks requires this silo's mark, and {reason.partition(';')[0]}"


def row_refusals(policy: Policy, experiment: Experiment, rows: RowCounts) -> Iterator[str]:
    """Reasons against too much work, and against so few rows that a result reveals single ones."""
    yield from _work(policy, experiment, above(rows.train, policy.count_rounding))
    yield from row_privacy_refusals(policy, experiment, rows.train)
    least = policy.min_examples
    if rows.train < least:
        yield f"it would train on fewer rows than policy.min_examples, which is {least}"
    if _scores_rows(experiment) and 0 < rows.held_out < least:
        yield (
            f"it would score fewer held-out rows than policy.min_examples, which is {least}; "
            "set evaluation.clients: false, or a larger data.client_test"
        )


def _work(policy: Policy, experiment: Experiment, examples: int) -> Iterator[str]:
    """Reasons against too much work. examples: of this silo; 0 before its rows are counted."""
    for what, asked, most in (
        ("steps in a round", experiment.train.steps(examples), policy.max_steps),
        ("examples in a round", experiment.train.most_examples(examples), policy.max_examples),
        (
            "examples in a batch",
            experiment.train.per_device_train_batch_size,
            policy.max_batch_size,
        ),
        ("examples in a batch of a task", _widest(experiment), policy.max_batch_size),
        ("rounds", experiment.rounds, policy.max_rounds),
    ):
        if asked > most:
            yield f"it has {asked:,} {what}, more than {most:,}"


def _scores_rows(experiment: Experiment) -> bool:
    """True if this silo scores the result on its held-out rows; not every method lets it."""
    return experiment.evaluation.clients and not build_method(experiment).withholds_scores


def _widest(experiment: Experiment) -> int:
    """The largest batch in which a task scores this silo's rows; 0 if none does."""
    tasks = build_tasks(experiment).values() if _scores_rows(experiment) else ()
    return max((getattr(task, "batch_size", 1) for task in tasks if not task.test_only), default=0)


def _adapters(experiment: Experiment) -> list[str]:
    """The adapters that are trained, those of models beside the base model included.

    Each has the name that an experiment gives it: a kind, `from` or `none`.
    """
    named = (model.adapter for model in experiment.models.values())
    choices = [experiment.adapter, *(choice for choice in named if choice is not None)]
    kinds = [key for own in choices for key in type(own).model_fields if getattr(own, key)]
    spelled = {"source": "from", "in_place": "none"}
    return [spelled.get(key, key) for key in dict.fromkeys(kinds)]
