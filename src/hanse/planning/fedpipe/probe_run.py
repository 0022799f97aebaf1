"""A deployed run of FedPipe's probe, as its folder tells it: scores, rows, and silos' machines."""

from dataclasses import dataclass, field
from pathlib import Path

from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.schema import Experiment, build_algorithm
from hanse.federation.algorithms.fedpipe import SCORES, FedPipe, matrices
from hanse.federation.server_state import ServerState
from hanse.federation.speed.link_rounds import link_round
from hanse.journal import checkpoints
from hanse.journal.records import ClientRecord
from hanse.journal.run_folder import read_ledger
from hanse.planning.devices.silo_figures import SiloFigures
from hanse.planning.fedpipe import measured_links
from hanse.planning.fedpipe.importance_round import Importance, model_name
from hanse.planning.fedpipe.measured_links import MeasuredLink
from hanse.tensors import low_rank
from hanse.tensors.named import Tensors

TOKEN_SECONDS = 1e-9, 1e3  # the least and the most that training takes for a token


@dataclass(frozen=True)
class ProbedSilo:
    """The figures that a silo has told.

    rows: of its training. mean: tokens of a row. token_seconds: of its training, for each token;
    None if it tells none that can be. figures: of its machine; None: none that can be used.
    remark: a clause on why; empty with figures.
    """

    rows: int
    mean: int
    token_seconds: float | None
    figures: SiloFigures | None
    remark: str = ""


@dataclass(frozen=True)
class ProbeRun:
    """The probe's results.

    sizes: rows and columns of each matrix, by its name in the model. links: of the silos whose
    links were timed, by their names.
    """

    folder: Path
    importance: Importance
    sizes: dict[str, int]
    silos: dict[str, ProbedSilo] = field(default_factory=dict)
    links: dict[str, MeasuredLink] = field(default_factory=dict)


def read(folder: Path, experiment: Experiment) -> ProbeRun:
    """The probe in a folder; raises UserError for another run, and for one of another adapter."""
    if not (folder / "experiment.yaml").is_file():
        raise UserError(f"{folder} is no run folder; name that of a run of FedPipe's probe.")
    probe = loading.load_left(folder / "experiment.yaml")
    algorithm = build_algorithm(probe)
    if not (isinstance(algorithm, FedPipe) and algorithm.probe):
        raise UserError(
            f"{folder} is no run of FedPipe's probe, which has a score of each matrix; run one "
            "with algorithm={fedpipe: {probe: true}}."
        )
    for name in ("model", "adapter"):
        if getattr(probe, name) != getattr(experiment, name):
            raise UserError(
                f"{folder} is a probe with another {name} than the experiment; run it again with "
                "the experiment's own settings."
            )
    checkpoint = checkpoints.latest(folder)
    state = ServerState.restored(checkpoint).algorithm_state if checkpoint else {}
    if SCORES not in state:
        raise UserError(f"{folder} has no round of the probe yet; let its run end first.")
    return _read(folder, state["model"], state[SCORES][SCORES].tolist())


def _read(folder: Path, model: Tensors, scores: list[float]) -> ProbeRun:
    layers, names = low_rank.layers(model), matrices(model)
    sizes = {model_name(n): len(layers[n].up) + layers[n].down.shape[1] for n in names}
    total = sum(scores) or 1.0
    shares = dict(zip(sizes, (score / total for score in scores), strict=True))
    records = read_ledger(folder)
    answers = {r.client: r for r in records if _is_answer(r)}  # the last of each
    silos = {name: _silo(record) for name, record in answers.items()}
    importance, links = Importance(shares, tuple(silos), None), measured_links.measured(records)
    return ProbeRun(folder, importance, sizes, silos, links)


def _is_answer(record: ClientRecord) -> bool:
    """True for the reply to a training; later rounds time links."""
    answered = record.kind == "train" and not record.error and bool(record.weight)
    return answered and link_round(record.round) is None


def _silo(record: ClientRecord) -> ProbedSilo:
    """The figures in a silo's reply."""
    figures, remark = None, "it sends no figures of its machine (policy.profile there)"
    try:
        figures = SiloFigures.read(record.numbers)
    except ValueError as error:
        remark = f"the figures of its machine are refused: {error}"
    tokens, examples, seconds = map(record.amount, ("tokens", "examples", "seconds"))
    mean = max(1, round(tokens / examples)) if tokens and examples else 1
    rows = max(1, round(record.weight or 1))
    spent = seconds / tokens if seconds and tokens else None
    if spent is not None and not TOKEN_SECONDS[0] <= spent <= TOKEN_SECONDS[1]:
        spent = None
    return ProbedSilo(rows, mean, spent, figures, "" if figures else remark)
