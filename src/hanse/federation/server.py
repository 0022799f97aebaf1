"""The federated loop: a generator of rounds.

In each round the server sends a request to each client. The client's learner trains as the
algorithm says, and its update passes the transforms. The aggregator combines the updates, and the
algorithm makes its step. Evaluation scores the new model, and the journal records the round.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count

from hanse.errors import UserError
from hanse.federation.accounting.run_account import admit_round
from hanse.federation.client_sampling import fewest_replies, fraction_asked, sample, taking_part
from hanse.federation.constants import FOLDER, ConstantStore
from hanse.federation.delivery import files
from hanse.federation.evaluation import evaluate
from hanse.federation.exchange import too_few
from hanse.federation.exchange.round import RoundExchange, open_round
from hanse.federation.interfaces.aggregator import TooFewClientsError
from hanse.federation.interfaces.declarations import IN_AGGREGATE
from hanse.federation.interfaces.results import Aggregate, Memory, State
from hanse.federation.messages import ClientProfile
from hanse.federation.releases import finish_once, mechanisms
from hanse.federation.run import Run
from hanse.federation.server_state import ServerState
from hanse.federation.start_remarks import tell_limits
from hanse.journal import updates
from hanse.journal.checkpoints import Checkpoint
from hanse.journal.records import RoundRecord
from hanse.journal.round_costs import round_costs
from hanse.journal.run_folder import read_rounds
from hanse.observability.progress import report
from hanse.observability.steps import Activity, FinishedRound, Rounds, Work
from hanse.tensors.named import all_finite

log = logging.getLogger(__name__)


def rounds(run: Run) -> Iterator[RoundRecord]:
    """The records of the rounds from the journal's last one on; round 0 precedes all training.

    Each record is durable, together with the state behind it, before it is yielded; so the caller
    may stop between two rounds, or the machine at any time.
    """
    profiles = run.profiles()
    _tell_rule(run, len(profiles))
    tell_limits(run)
    checkpoint = run.journal.restore()
    report(Rounds(0, run.schedule.rounds))
    if checkpoint is None:
        server_state, done = start(run, profiles), 0
        yield _evaluate_and_commit(run, 0, server_state, None, profiles)
    else:
        server_state, done = restored(run, checkpoint), checkpoint.round
        for record in read_rounds(run.journal.folder):
            _report_round(run, record)
    for round in range(done + 1, run.schedule.rounds + 1):
        profiles = run.profiles()
        server_state, aggregate = _train_round(run, round, server_state, profiles)
        yield _evaluate_and_commit(run, round, server_state, aggregate, profiles)


def _tell_rule(run: Run, clients: int) -> None:
    """Log the aggregator's terms for as many clients as a round asks."""
    share = fraction_asked(run.schedule.fraction_train, run.schedule.over_selection)
    for phrase in run.method.describe(taking_part(clients, share)):
        log.info("aggregator: %s", phrase)


def start(run: Run, profiles: Mapping[str, ClientProfile]) -> ServerState:
    """The server's state before the first round."""
    if run.method.sends_files:
        _prepare(run, len(profiles))
    optimizers: dict[str, Memory] = {}
    server = run.server(0, len(profiles), optimizers)
    algorithm = run.method.algorithm
    constants = server.learner.constants()
    _constant_store(run).keep(constants)
    state = algorithm.init(server)
    contexts = [run.context(round) for round in range(1, run.schedule.rounds + 1)]
    transform_states = run.method.init_transforms(state, profiles.values(), contexts)
    for profile in profiles.values():  # a codec that does not fit says so before a client trains
        run.method.encoded_layout(state, transform_states, profile, run.context(1))
    return ServerState(state, transform_states, optimizers, {}, constants)


def _prepare(run: Run, clients: int) -> None:
    """Make the run's files, unless an earlier process has; the learners are as before afterwards.

    Otherwise a server that was killed between the two would begin with other tensors.
    """
    server = run.server(0, clients, {})
    learners = (server.learner, *server.learner.models.values())
    before = [learner.tensors() for learner in learners]
    _use_files(run, files.prepare(run.journal.folder, partial(run.method.prepare, server)))
    for learner, tensors in zip(learners, before, strict=True):
        learner.load(tensors)


def _use_files(run: Run, run_files: files.RunFiles) -> None:
    """Let the server's half of a run use the files that its clients are sent."""
    run.files = run_files
    run.method = run.method.with_files(run_files.paths)


def _constant_store(run: Run) -> ConstantStore:
    return ConstantStore(run.journal.folder / FOLDER)


def restored(run: Run, checkpoint: Checkpoint) -> ServerState:
    """The server's state at a checkpoint; files and its learner's constants are the same again."""
    if run.method.sends_files:
        _use_files(run, files.read(run.journal.folder))
    constants = _constant_store(run).read(checkpoint.constants)
    run.learner(run.context(0), {}).put_constants(constants)
    return ServerState.restored(checkpoint, constants)


def _train_round(
    run: Run, round: int, before: ServerState, profiles: Mapping[str, ClientProfile]
) -> tuple[ServerState, Aggregate]:
    """One round up to the algorithm's step: the server's next state, and the round's aggregate.

    The aggregate's tensors are left out, so that they need no memory while the round is evaluated.
    """
    aggregate, finished = _finished(run, round, before, profiles)
    with run.journal.ledger.time("step"):
        optimizers = {name: dict(memory) for name, memory in before.optimizers.items()}
        server = run.server(round, len(profiles), optimizers)
        state = run.method.algorithm.step(before.algorithm_state, aggregate, server)
    _refuse_infinite(state, round, aggregate.clients)
    aggregate = replace(aggregate, tensors={})
    return replace(finished, algorithm_state=state, optimizers=optimizers), aggregate


def _finished(
    run: Run, round: int, before: ServerState, profiles: Mapping[str, ClientProfile]
) -> tuple[Aggregate, ServerState]:
    """A round's finished aggregate, and the server's state after it.

    Both are durable if they cannot be had again: noise is not drawn twice, and clients may help to
    open a sum of a round only once.
    """
    method, ledger, states = run.method, run.journal.ledger, before.transform_states

    def finish() -> tuple[Aggregate, ServerState]:
        admit_round(run, round, before, profiles)
        exchange, aggregate = _aggregated(run, round, before, profiles)
        with ledger.time("round"):
            aggregate, next_states = method.finish(aggregate, states, run.context(round))
        after = replace(
            before,
            transform_states={**states, **next_states},
            last_counted_rounds=exchange.counting(aggregate.clients),
            download_memories=exchange.downloads.memories_after,
        )
        return aggregate, after

    noise = mechanisms(method.all_pipelines, IN_AGGREGATE, states, run.context(round))
    if not noise and not method.aggregator.opens_once:
        return finish()
    return finish_once(run.releases, ledger, round, before, noise, finish)


def _refuse_infinite(state: State, round: int, clients: Sequence[str]) -> None:
    """Raise UserError for a model that a restart could not continue from; nothing is committed."""
    if not all(map(all_finite, state.values())):
        raise UserError(
            f"the model after round {round} would hold values that are not finite, made of the "
            f"updates of {', '.join(clients)}; the round is not saved. Lower train.learning_rate "
            "(or the algorithm's own), or look after these clients' data."
        )


def _aggregated(
    run: Run, round: int, server_state: ServerState, profiles: Mapping[str, ClientProfile]
) -> tuple[RoundExchange, Aggregate]:
    """A round's aggregate; below the quorum the updates are dropped, and the round is repeated."""
    schedule, ledger = run.schedule, run.journal.ledger
    replies_awaited = taking_part(len(profiles), schedule.fraction_train)
    share = fraction_asked(schedule.fraction_train, schedule.over_selection)
    sampled = sample(profiles, share, run.context(round))
    fewest = fewest_replies(schedule.quorum, len(profiles), schedule.fraction_train)
    replies_required = max(fewest, run.method.least_updates(run.context(round)))
    attempts = count()
    while True:
        records_before = len(ledger.records)
        if run.collects:  # those of a try that was dropped
            updates.truncate(run.journal.folder, round - 1)
        exchange = open_round(
            run, round, server_state, sampled, replies_awaited, next(attempts), replies_required
        )
        try:
            with ledger.time("round"):
                aggregate = run.method.aggregator.aggregate(exchange)
            left = len(aggregate.clients) + len(aggregate.excluded)
            required = replies_required
            if left >= required:
                return exchange, aggregate
        except TooFewClientsError as error:
            left, required = error.left, max(error.required, replies_required)
        silent = exchange.inquiry.silent
        message = too_few.message(round, left, required, ledger.records[records_before:], silent)
        if required > min(replies_awaited, len(sampled)):  # no wait would help
            raise UserError(f"{message} {too_few.NEVER}")
        if silent and not run.transport.remote:  # they would be late again
            raise UserError(f"{message} {too_few.LATER}")
        if not left and not silent and not run.may_repeat(ledger.records[records_before:]):
            raise UserError(message)
        log.warning("%s The run is paused.", message)
        with ledger.time("round"), ledger.time("clients"):
            names = dict.fromkeys((*exchange.instructions, *silent))
            if not run.transport.wait_for(list(names), required):
                raise UserError(message)


def _evaluate_and_commit(
    run: Run,
    round: int,
    server_state: ServerState,
    aggregate: Aggregate | None,
    profiles: Mapping[str, ClientProfile],
) -> RoundRecord:
    """Evaluate, record and commit a round; aggregate: None for round 0."""
    scores = evaluate(run, round, server_state, profiles)
    record = RoundRecord(
        round=round,
        clients=aggregate.clients if aggregate else (),
        excluded=aggregate.excluded if aggregate else (),
        weight=aggregate.weight if aggregate else None,
        train=dict(aggregate.numbers) if aggregate else {},
        time=time.time(),
        **vars(scores),
        **vars(round_costs(run.journal.ledger, run.transport.remote)),
    )
    report(Work(Activity.SAVING_ROUND))
    run.journal.commit(server_state.checkpoint(round), record)
    if record.simulated_seconds:
        simulated = sum(record.simulated_seconds.values())
        log.info("round %d took %.4g simulated seconds over the links", round, simulated)
    _report_round(run, record)
    return record


def _report_round(run: Run, record: RoundRecord) -> None:
    """Report the seconds and bytes of a finished round to the progress view."""
    costs = FinishedRound(sum(record.seconds.values()), record.bytes.down, record.bytes.up)
    report(Rounds(record.round, run.schedule.rounds, costs))
