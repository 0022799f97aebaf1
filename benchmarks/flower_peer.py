"""The demo's job by Flower's own simulation, with clients in the style of Flower's templates.

The app in peers/flower follows the templates of `flwr new` in flwr 1.22 to 1.24 (later packages
carry none). From the FlowerTune template it has what happens to every message: the model is loaded
from disk, gets an adapter and the arrays that came, and the adapter's arrays go back in an
ArrayRecord. From the Hugging Face template it has the loop: plain PyTorch over a shuffled
DataLoader, which costs less than FlowerTune's trainer. What both templates do beside that for every
message, loading the tokenizer and tokenizing, is left out: reviews come as token ids. Model,
adapter, silos, steps, batches and the loss are those of `plain` in overhead.py.

Flower runs as it comes, by `run_simulation`: FedAvg, and two processors for each client, so that on
two cores clients run one at a time. Telemetry and update checks are off, as Ray's dashboard is by
Flower's own choice. All of it lives in .venv-flower, made on first use with the torch that is
running here and the versions of constraints.txt.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from process_tree import PROC, Cost, measure

from hanse.experiment.assembly.assemble import Simulation
from hanse.experiment.assembly.resources import adapter_settings
from hanse.learners.adapters.lora import Lora
from hanse.learners.models.model_files import locate

ROOT = Path(__file__).parent.parent
APP = ROOT / "benchmarks" / "peers" / "flower" / "simulate.py"
HOME = ROOT / ".venv-flower"
PYTHON = HOME / "bin" / "python"
WANTED = ("flwr[simulation]==1.41.*", "transformers", "peft")
SILENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
}


class UnavailableError(Exception):
    """Flower cannot be had here; says why."""


def simulated(simulation: Simulation, folder: Path, rounds: int) -> tuple[Cost, int]:
    """What the job costs by Flower's simulation, and the tokens that were trained on.

    folder: an empty one, not deep, since Ray puts sockets there and their names are short.
    Raises RuntimeError if Flower fails, or does not do as many steps as were wanted.
    """
    hand_over(simulation, folder, rounds)
    around = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own = {"FLOWER_PEER": str(folder), "FLWR_HOME": str(folder / "flwr"), "RAY_TMPDIR": str(folder)}
    log = folder / "log"
    cost = measure([str(PYTHON), str(APP)], {**around, **SILENT, **own}, log)
    done = json.loads((folder / "done.json").read_text())
    wanted = len(simulation.clients) * (simulation.experiment.train.max_steps or 0)
    if [own["steps"] for own in done] != [wanted] * rounds:
        raise RuntimeError(
            f"Flower did {done} where {rounds} times {wanted} steps were wanted:\n"
            f"{log.read_text(errors='replace')[-3000:]}"
        )
    return cost, sum(own["tokens"] for own in done)


def hand_over(simulation: Simulation, folder: Path, rounds: int) -> None:
    """Write the job, and every silo's tokenized reviews, for the app."""
    experiment = simulation.experiment
    lora = adapter_settings(experiment)
    assert isinstance(lora, Lora)
    silos = [silo.examples["train"] for silo in simulation.clients.values()]
    job = {
        "model": locate(experiment.model.model_name_or_path),
        "lora": asdict(lora),
        "words": [choice[0] for choice in silos[0][0].choices],
        "silos": len(silos),
        "rounds": rounds,
        "steps": experiment.train.max_steps,
        "batch": experiment.train.per_device_train_batch_size,
        "learning_rate": experiment.train.learning_rate,
    }
    (folder / "job.json").write_text(json.dumps(job))
    for number, examples in enumerate(silos):
        rows = [(example.ids, example.choice) for example in examples]
        (folder / f"silo-{number}.json").write_text(json.dumps(rows))


def prepare() -> dict[str, str]:
    """Make Flower's environment if it is not there; the versions in it.

    Raises UnavailableError if it cannot be made.
    """
    if not PROC.is_dir():
        raise UnavailableError("the processes of a run are counted in /proc, which only Linux has")
    torch = f"torch=={version('torch').partition('+')[0]}"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = "\n".join(line for line in lines if not line.startswith("torch=="))
    stamp, wanted = HOME / "installed.txt", "\n".join([torch, *WANTED, tested])
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"setting up {HOME.name} (minutes, once)", flush=True)
        shutil.rmtree(HOME, ignore_errors=True)
        call(sys.executable, "-m", "venv", str(HOME))
        (HOME / "constraints.txt").write_text(tested)
        install(torch)  # first and by itself, so that what follows takes the same
        install("-c", str(HOME / "constraints.txt"), torch, *WANTED)
        stamp.write_text(wanted)
    frozen = call(str(PYTHON), "-m", "pip", "--disable-pip-version-check", "freeze")
    return dict(line.split("==") for line in frozen.splitlines() if "==" in line)


def install(*words: str) -> None:
    """Install into Flower's environment."""
    call(str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "-q", *words)


def call(*command: str) -> str:
    """What a command of the set-up says; raises UnavailableError with its first error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        errors = [line for line in said if line.startswith("ERROR: ")] or said[-1:]
        first = " ".join(errors[:1]).removeprefix("ERROR: ")
        raise UnavailableError(f"its environment cannot be made: {first}")
    return done.stdout
