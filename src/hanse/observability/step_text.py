"""The words for a step of work: the one place where `steps` become text."""

from hanse.observability.steps import (
    Activity,
    Job,
    SiloActivity,
    SiloState,
    Training,
    WaitingForSilos,
    Work,
)

TITLES = {
    Activity.LOADING_MODEL: "loading {}",
    Activity.CONVERTING_MODEL: "converting {}",
    Activity.LOADING_DATASET: "loading {} from the hub",
    Activity.READING_FILE: "reading {}",
    Activity.PARTITIONING: "reading and dividing the data",
    Activity.TOKENIZING: "tokenizing rows",
    Activity.EMBEDDING: "embedding texts",
    Activity.MEASURING_MACHINE: "measuring this machine",
    Activity.MEASURING_CLIENTS_PER_PASS: "measuring how many clients train best together",
    Activity.SENDING_FILE: "sending files: {}",
    Activity.AGGREGATING: "combining the replies",
    Activity.SCORING: "scoring {}",
    Activity.GENERATING: "generating {}",
    Activity.SAVING_ROUND: "saving the round",
    Activity.REOPENING_ADAPTER: "opening the adapter again",
    Activity.MERGING_ADAPTER: "merging the adapter into the model",
    Activity.DISTILLING: "distilling the middle of the model",
    Activity.WRITING_REPORT: "writing the report",
    Activity.OPENING_TRACKER: "opening {}",
    Activity.CLOSING_TRACKER: "closing {}",
}
MB = 10**6  # bytes
PHASES = {  # by kind of request
    "prepare": "receiving files",
    "train": "training",
    "agreed": "training",
    "evaluate": "evaluating",
}


def title(job: Job) -> str:
    """The work in a few words, the same for all steps of the same work."""
    match job:
        case Work():
            return TITLES[job.activity].format(job.subject)
        case Training():
            return f"training {_trained(job.clients)}"
        case WaitingForSilos():
            names = ", ".join(silo.name for silo in job.silos)
            paused = f"paused, since a round needs {job.needed}: " if job.needed else ""
            return f"{paused}waiting for {len(job.silos)} of {job.of}: {names}"


def detail(job: Job) -> str:
    """More words, which may change while the work is the same; empty if there are none."""
    if not isinstance(job, WaitingForSilos):
        return ""
    return "; ".join(f"{silo.name} {silo_activity(silo)}" for silo in job.silos)


def silo_activity(silo: SiloActivity) -> str:
    """The state of a silo, and its duration."""
    match silo.state:
        case SiloState.NEVER_SEEN:
            return "never seen"
        case SiloState.GONE:
            return f"gone, last seen {silo.seconds:.0f} s ago"
        case SiloState.IDLE:
            return "there"
        case SiloState.RECEIVING:
            done, total = silo.done / MB, silo.total / MB
            heard = f"last heard {silo.seconds:.0f} s ago"
            return f"receiving the model, {done:,.1f} of {total:,.1f} MB, {heard}"
        case SiloState.WORKING:
            return (
                f"{PHASES.get(silo.phase, f'in the phase {silo.phase}')} for {silo.seconds:.0f} s"
            )


def _trained(clients: tuple[str, ...]) -> str:
    if not clients:
        return "on the server"
    return clients[0] if len(clients) == 1 else f"{len(clients)} clients"
