"""The federated loop: a generator of rounds.

The server sends a request to each client of the federation; its learner trains as the algorithm
says; the update passes compression and privacy; the aggregator combines; the algorithm steps;
evaluation measures; the journal records.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from hanse.errors import UserError
from hanse.federation.client_sampling import sample, taking_part
from hanse.federation.compatibility import check
from hanse.federation.constants import FOLDER, ConstantStore
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Algorithm, Server
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Aggregate, Memory, Scores, State
from hanse.federation.interfaces.task import Task
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile
from hanse.federation.pipeline import Pipeline
from hanse.federation.round import RoundExchange
from hanse.federation.schedule import Schedule
from hanse.federation.server_state import ServerState
from hanse.journal.checkpoints import Checkpoint
from hanse.journal.ledger import Row
from hanse.journal.round_costs import spent
from hanse.journal.run_folder import Journal, records
from hanse.observability.progress import report
from hanse.observability.steps import Activity, FinishedRound, Rounds, Work
from hanse.randomness import RoundContext
from hanse.tensors.named import all_finite, digest, layout

log = logging.getLogger(__name__)


@dataclass
class Run:
    """The parts of a run, put together; `rounds` makes them go.

    learner: makes the server's learner for a round; it gets the context, and the optimizer's
        memory for an algorithm that trains on the server.
    scored: by split, the digest of the model that was scored last, and each task's scores.
    """

    schedule: Schedule
    algorithm: Algorithm
    upload: Pipeline
    download: Pipeline
    aggregator: Aggregator
    federation: Transport
    learner: Callable[[RoundContext, Memory], Learner]
    tasks: Mapping[str, Task]
    journal: Journal
    scored: dict[str, tuple[str, dict[str, Scores]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self.algorithm, self.upload.transforms, self.aggregator)


def rounds(run: Run) -> Iterator[Row]:
    """The records of the rounds from where the journal stands; round 0 is before all training.

    Each record is durable, together with the state behind it, before it is yielded; so the caller
    may stop between two rounds, or the machine at any time.
    """
    profiles = {profile.name: profile for profile in run.federation.profiles()}
    former = run.journal.restore()
    report(Rounds(0, run.schedule.rounds))
    if former is None:
        server_state = start(run, profiles)
        yield _evaluate_and_commit(run, 0, server_state, {}, profiles)
        done = 0
    else:
        server_state, done = _restored(run, former), former.round
        for record in records(run.journal.folder):
            _tell(run, record)
    for number in range(done + 1, run.schedule.rounds + 1):
        profiles = {profile.name: profile for profile in run.federation.profiles()}
        server_state, record = _round(run, number, server_state, profiles)
        yield _evaluate_and_commit(run, number, server_state, record, profiles)


def open_round(
    run: Run,
    number: int,
    server_state: ServerState,
    profiles: Mapping[str, ClientProfile],
    enough: int | None = None,
) -> RoundExchange:
    """The exchange with the clients of one round, ordered in client order.

    enough: how many answers to training are waited for; None: all.
    """
    context = RoundContext(run.schedule.seed, number)
    instructions = {}
    for name, profile in profiles.items():
        instruction = run.algorithm.instruction(server_state.algorithm_state, profile, context)
        if instruction is not None:
            instructions[name] = instruction
    return RoundExchange(
        run.federation,
        run.algorithm,
        run.upload,
        run.download,
        run.aggregator,
        server_state.algorithm_state,
        server_state.transform_states,
        {name: profiles[name] for name in instructions},
        instructions,
        server_state.last_counted_rounds,
        context,
        run.journal.ledger,
        run.schedule.deadline,
        enough,
        run.schedule.max_norm_ratio,
        server_state.constants,
        server_state.holding,
    )


def start(run: Run, profiles: Mapping[str, ClientProfile]) -> ServerState:
    """What the server knows before the first round."""
    optimizer_state: Memory = {}
    server = _server(run, 0, len(profiles), optimizer_state)
    constants = server.learner.constants()
    _store(run).keep(constants)
    state = run.algorithm.init(server)
    expected = layout(run.algorithm.model(state))
    transform_states = run.upload.init(expected) | run.download.init(expected)
    return ServerState(state, transform_states, optimizer_state, {}, constants)


def _store(run: Run) -> ConstantStore:
    return ConstantStore(run.journal.folder / FOLDER)


def _restored(run: Run, former: Checkpoint) -> ServerState:
    """What the server knew at a checkpoint, with the same constants in its learner."""
    constants = _store(run).read(former.constants)
    run.learner(RoundContext(run.schedule.seed), {}).put_constants(constants)
    return ServerState.restored(former, constants)


def _round(
    run: Run, number: int, server_state: ServerState, profiles: Mapping[str, ClientProfile]
) -> tuple[ServerState, Row]:
    """One round up to the algorithm's step: the next server_state, and what there is to record."""
    ledger = run.journal.ledger
    exchange, combined = _combined(run, number, server_state, profiles)
    with ledger.time("round"):
        combined, transform_states = run.upload.finish(combined, server_state.transform_states)
    with ledger.time("step"):
        optimizer_state = dict(server_state.optimizer_state)
        server = _server(run, number, len(profiles), optimizer_state)
        state = run.algorithm.step(server_state.algorithm_state, combined, server)
    _refuse_infinite(state, number, combined.clients)
    counted = exchange.counting(combined.clients)
    transform_states = {**server_state.transform_states, **transform_states}
    after = replace(
        server_state,
        algorithm_state=state,
        transform_states=transform_states,
        optimizer_state=optimizer_state,
        last_counted_rounds=counted,
    )
    record = {"clients": list(combined.clients), "weight": combined.weight}
    return after, {**record, "train": dict(combined.numbers)}


def _refuse_infinite(state: State, number: int, clients: Sequence[str]) -> None:
    """Raise UserError for a model that a restart could not go on with; nothing is committed."""
    if not all(map(all_finite, state.values())):
        raise UserError(
            f"the model after round {number} would hold values that are not finite, made of the "
            f"updates of {', '.join(clients)}; the round is not saved. Lower train.learning_rate "
            "(or the algorithm's own), or look after these clients' data."
        )


def _combined(
    run: Run, number: int, server_state: ServerState, profiles: Mapping[str, ClientProfile]
) -> tuple[RoundExchange, Aggregate]:
    """A round's updates, combined; below the quorum they are dropped, and the round asked again."""
    plan, ledger = run.schedule, run.journal.ledger
    enough = taking_part(len(profiles), plan.fraction_train)
    wider = min(1.0, plan.fraction_train * plan.over_selection)
    chosen = sample(profiles, wider, RoundContext(plan.seed, number))
    needed = min(plan.quorum, enough)
    while True:
        exchange = open_round(run, number, server_state, chosen, enough)
        former = len(ledger.rows)
        with ledger.time("round"):
            combined = run.aggregator.aggregate(exchange)
        if len(combined.clients) >= needed:
            return exchange, combined
        said = _too_few(number, combined, needed, ledger.rows[former:])
        if not combined.clients and not exchange.silent:  # all have said why not
            raise UserError(said)
        log.warning("%s The run is paused.", said)
        with ledger.time("round"), ledger.time("clients"):
            if not run.federation.wait_for(list(exchange.instructions), needed):
                raise UserError(said)


def _evaluate_and_commit(
    run: Run,
    number: int,
    server_state: ServerState,
    record: Row,
    profiles: Mapping[str, ClientProfile],
) -> Row:
    """Evaluate, record and commit a round."""
    last = number == run.schedule.rounds
    ledger = run.journal.ledger
    with ledger.time("evaluation"):
        every = run.schedule.validate_every
        if last or (every and number % every == 0):
            record = {**record, **_evaluated(run, number, server_state, "validation")}
        if (last and run.schedule.test) or (number == 0 and run.schedule.test is True):
            record = {**record, **_evaluated(run, number, server_state, "test")}
    if last and run.schedule.evaluate_clients:
        exchange = open_round(run, number, server_state, profiles)
        with ledger.time("round"):
            answers = {profile.name: update for profile, update in exchange.evaluate()}
        scored = {name: dict(u.numbers) for name, u in answers.items() if u.weight}
        if scored:
            record = {**record, "client_test": scored}
    record = {
        "round": number,
        **record,
        **spent(run.journal.ledger, run.federation.remote),
        "time": time.time(),
    }
    report(Work(Activity.SAVING_ROUND))
    run.journal.commit(server_state.checkpoint(number), record)
    _tell(run, record)
    return record


def _tell(run: Run, record: Row) -> None:
    """Tell whoever watches what a finished round took."""
    costs = FinishedRound(sum(record["seconds"].values()), **record["bytes"])
    report(Rounds(record["round"], run.schedule.rounds, costs))


def _evaluated(run: Run, number: int, server_state: ServerState, split: str) -> Row:
    """The global model's scores on one of the server's splits."""
    learner = run.learner(RoundContext(run.schedule.seed, number), {})
    tasks = {n: task for n, task in run.tasks.items() if split == "test" or not task.test_only}
    if not tasks or not learner.examples(split):
        return {}
    model = run.algorithm.model(server_state.algorithm_state)
    known = digest(model)
    if run.scored.get(split, ("", {}))[0] != known:  # an unchanged model is not scored again
        learner.load(model)
        run.scored[split] = known, {n: task.evaluate(learner, split) for n, task in tasks.items()}
    metrics: dict[str, float] = {}
    for name, scores in run.scored[split][1].items():
        metrics |= scores.metrics
        if split == "test":
            samples = [asdict(sample) for sample in scores.samples]
            run.journal.scores(f"{split}-{name}", number, scores.metrics, scores.items, samples)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    log.info("round %d: %s %s", number, split, shown)
    return {split: metrics}


def _server(run: Run, number: int, num_clients: int, optimizer_state: Memory) -> Server:
    context = RoundContext(run.schedule.seed, number)
    return Server(run.learner(context, optimizer_state), num_clients, context)


def _too_few(number: int, combined: Aggregate, needed: int, rows: Sequence[Row]) -> str:
    few = f"only {len(combined.clients)} of {needed} clients' updates could be used"
    said = few if combined.clients else "no client's update could be used"
    return f"{said} in round {number}: {_reasons(rows)}"


def _reasons(rows: Sequence[Row]) -> str:
    """Why the clients of a round have nothing to say, each in a sentence of its own."""
    said = [f"{row['client']}: {row['error']}" for row in rows if "error" in row]
    weightless = any(row.get("weight") == 0 for row in rows)
    return " ".join(said) or ("all weights are 0." if weightless else "none answered.")
