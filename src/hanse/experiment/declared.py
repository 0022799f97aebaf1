"""Public rows and named models: those that the parts declare, against those of the settings."""

from hanse.experiment.part_kinds import spec_name
from hanse.experiment.schema import LABELLED, Experiment, build_algorithm, build_objective
from hanse.experiment.validation import SettingError
from hanse.registry import suggestion

# The objective to name for a kind of examples.
USUAL = {"tokens": "sft", "label_words": "classify", "tags": "tag"}


def check_declared(experiment: Experiment) -> None:
    """Raise SettingError for what a part needs and no setting names, and for the converse."""
    _check_public(experiment)
    _check_example_kind(experiment)
    used = (*client_models(experiment), *server_models(experiment))
    for name in experiment.models:
        if name not in used:
            advice = f"call it {' or '.join(sorted({*used}))}, or leave" if used else "leave"
            raise SettingError(
                f"models.{name} is used by neither the algorithm nor the objective"
                f"{suggestion(name, used)}; {advice} it out.",
                ("models", name),
            )
    _check_co_trained(experiment)
    _check_loss(experiment)


def loss_remarks(experiment: Experiment) -> list[str]:
    """A remark if public rows are learned by another loss than that of the objective."""
    if "public" not in build_algorithm(experiment).replaces_loss or _plain(experiment):
        return []
    return [
        f"on public rows {_algorithm(experiment)} trains by a loss of its own; that of the "
        f"objective {spec_name(experiment.objective)} holds for clients' own rows alone."
    ]


def client_models(experiment: Experiment) -> tuple[str, ...]:
    """The names of the models that clients use beside the trained one.

    Raises SettingError for one that `models` does not have.
    """
    return _named(
        experiment,
        (f"the objective {spec_name(experiment.objective)}", build_objective(experiment).models),
        (_algorithm(experiment), build_algorithm(experiment).client_models),
    )


def server_models(experiment: Experiment) -> tuple[str, ...]:
    """The names of the models that the server uses beside the trained one, as `client_models`."""
    return _named(experiment, (_algorithm(experiment), build_algorithm(experiment).server_models))


def _algorithm(experiment: Experiment) -> str:
    return f"the algorithm {spec_name(experiment.algorithm)}"


def _named(experiment: Experiment, *users: tuple[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The names that parts declare, each once. users: each part in words, and its names."""
    known, trained = experiment.models, build_algorithm(experiment).co_trained
    for user, names in users:
        for name in names:
            if name not in known:
                adapter = ", adapter: lora" if name in trained else ""
                raise SettingError(
                    f"{user} uses a model called {name}, and `models` has "
                    f"{', '.join(known) or 'none'}; write models: {{{name}: "
                    f"{{model_name_or_path: a model{adapter}}}}}.",
                    ("models",),
                )
    return tuple(dict.fromkeys(name for _, names in users for name in names))


def _check_co_trained(experiment: Experiment) -> None:
    """Refuse a frozen model where the algorithm trains it together with the trained one."""
    for client in ("", *experiment.clients):
        own = experiment.for_client(client) if client else experiment
        for name in build_algorithm(experiment).co_trained:
            if own.models[name].adapter is None:
                place = ".".join([*(("clients", client) if client else ()), "models", name])
                raise SettingError(
                    f"{_algorithm(experiment)} trains {place}, which has no adapter and would stay "
                    f"as it is; give it one, such as {place}.adapter=lora.",
                    ("models", name),
                )


def _check_loss(experiment: Experiment) -> None:
    """Refuse an objective whose loss the algorithm would ignore."""
    if "train" in build_algorithm(experiment).replaces_loss and not _plain(experiment):
        raise SettingError(
            f"{_algorithm(experiment)} trains by cross-entropy and other models' answers, and "
            f"would ignore the loss of the objective {spec_name(experiment.objective)}; choose the "
            "objective sft, classify or tag, or another algorithm, such as fedavg.",
            ("objective",),
        )


def _plain(experiment: Experiment) -> bool:
    """True if the objective is the cross-entropy that algorithms with losses of their own take."""
    return build_objective(experiment).is_cross_entropy


def _check_example_kind(experiment: Experiment) -> None:
    """Refuse an objective whose examples have nothing that the algorithm could use."""
    kinds = build_algorithm(experiment).example_kinds
    kind = build_objective(experiment).example_kind
    if kinds and kind not in kinds:
        fitting = " or ".join(USUAL.get(known, known) for known in kinds)
        instead = "feddistill, which compares label words" if kind in LABELLED else "fedavg"
        raise SettingError(
            f"{_algorithm(experiment)} learns from {' or '.join(kinds)}, and the objective "
            f"{spec_name(experiment.objective)} makes {kind} of rows; choose objective: {fitting}, "
            f"or the algorithm {instead}.",
            ("objective",),
        )


def _check_public(experiment: Experiment) -> None:
    """Refuse an algorithm without its public rows, and public rows that nobody uses."""
    name, needed = spec_name(experiment.algorithm), build_algorithm(experiment).needs_public
    public = experiment.data.public
    if needed and public is None:
        raise SettingError(
            f"the algorithm {name} needs public rows ({' and '.join(needed)}), and data.public "
            "names none; write a file, a folder or a data set's name there.",
            ("data", "public"),
        )
    if public is not None and not needed:
        raise SettingError(
            f"data.public names {public.path}, but the algorithm {name} uses no public rows; leave "
            "data.public out, or choose an algorithm that needs it.",
            ("data", "public"),
        )
