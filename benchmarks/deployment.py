"""What a round costs over Flower on loopback, beyond training: seconds, and where; memory.

Silos of a random Llama of 2 layers with an adapter of 2 MB, each a process forked from this one, so
that what they share is in memory once; a few also with kits (TLS, keys, signatures), without and
with an agreement of the silos in each round. A round's way has three parts: until a silo has its
request (its node looks every 3 s), its training, and until the server has all answers (its
ServerApp looks for each every 0.4 s). Gates: at most 6 s a round beyond training with 4 silos, and
each silo loads its model once; with 32 silos at most 1.3 × the server's memory with 4. And the
demo's experiment on its real model, for two rounds: deployed, it ends in the adapter of
`clients_per_pass: off` in one process, bit for bit.

What was measured before is kept; `--anew` measures it again. Writes
benchmarks/results/deployment.json.
"""

import argparse
import hashlib
import json
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from measured import ROOT, keep, results
from process_tree import below
from scale import experiment as scaled
from scale import prepare
from transformers import AutoConfig, LlamaForCausalLM

from hanse.deployment.flower.processes import free_port
from hanse.deployment.server import serve
from hanse.deployment.silo import join
from hanse.deployment.silo.policy import ROW_SETTINGS, Policy
from hanse.deployment.silo.settings import Rows, SiloSettings
from hanse.experiment import loading
from hanse.experiment.schema import Experiment
from hanse.journal.run_folder import read_ledger, read_rounds
from hanse.observability.json_logs import LogFormat
from hanse.security import kits as identity
from hanse.security import members as bundle
from hanse.simulation import run as simulation

DEMO = ROOT / "experiments" / "quickstart.yaml"
DEMO_ROUNDS = 2
TRUST = NONE, KITS, AGREEMENT = "without kits", "with kits", "with kits and agreement"
PATIENCE = 1200.0  # seconds until all rounds must be done
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK = 64  # on every matrix of a model 256 wide: 2 MB


def experiment(home: Path, silos: int, rounds: int) -> Experiment:
    """All silos train for one step of 4 rows in each round."""
    values = scaled(home, silos, rounds).resolved()
    values["adapter"] = {"lora": {"r": RANK, "target_modules": EVERY}}
    values |= {"fraction_train": 1.0, "output_dir": str(home / "run")}
    return Experiment.model_validate(values)


def widen(home: Path) -> None:
    """Make the model of the benchmark of scale wide enough for such an adapter."""
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(home / "model")
    config.update({"hidden_size": 256, "intermediate_size": 512, "head_dim": 64})
    LlamaForCausalLM(config).save_pretrained(home / "model")


def started(work: Callable[[], object], log: Path) -> Any:
    """A forked process that does some work, and logs to a file as JSON."""

    def child() -> None:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        logging.basicConfig(force=True, stream=sys.stderr, level=logging.INFO)
        work()

    process = get_context("fork").Process(target=child, daemon=True)
    process.start()
    return process


def know_each_other(home: Path, names: Sequence[str]) -> None:
    """Make kits for a server (kits/server) and its silos, as their administrators would."""
    hub = home / "kits" / "server"
    identity.init(hub, [], 30)
    for name in names:
        identity.enrol(hub, identity.make_keys(home / "kits" / name, name))
    members = home / "members.pub"
    members.write_text(bundle.written(identity.open_server(hub)))
    for name in names:
        for file in ("ca.crt", "server.pub"):
            shutil.copy(hub / file, home / "kits" / name / file)
        bundle.trust(home / "kits" / name, members)


def deploy(home: Path, settings: Experiment, trust: str = NONE) -> int:
    """Run an experiment with a server and its silos, each a process; their logs are in `home`.

    trust: one of TRUST.

    The most bytes of memory of the server and its Flower, looked at once a second.
    """
    port = free_port()
    names = settings.participant_names
    kits = home / "kits" if trust != NONE else None
    if kits:
        know_each_other(home, names)
    address = serve.Address(port=port, kit=kits and kits / "server")
    server = started(
        lambda: serve.serve(settings, address, logs=LogFormat.JSON), home / "server.log"
    )
    processes = [server]
    try:
        for name in names:
            silo = SiloSettings(
                name=name,
                server=f"127.0.0.1:{port}",
                data=Rows(path=settings.data.path),
                kit=kits and kits / name,
                state=home / "silos" / name,
                policy=Policy(
                    agreement="auto" if trust == AGREEMENT else "never",
                    data_settings=ROW_SETTINGS,
                    count_rounding=1,  # so that the adapter is the simulated one bit for bit
                ),
            )
            log = home / f"{name}.log"
            processes.append(started(partial(join.join, silo, logs=LogFormat.JSON), log))
        peak, end = 0, time.monotonic() + PATIENCE
        while server.is_alive() and time.monotonic() < end:
            peak = max(peak, of_server(server.pid))
            server.join(1.0)
        if server.exitcode != 0:
            raise SystemExit((home / "server.log").read_text()[-3000:])
        return peak
    finally:
        for process in processes:
            process.terminate()


def of_server(process: int) -> int:
    """Bytes of memory of the server and of what it started, without files that are mapped.

    The server's own pages count in full, though it is forked here as the silos are; those of
    Flower's programs, which share them among themselves only, by their share.
    """
    flower = sum(anonymous(number, "Pss_Anon") for number in below(process))
    return anonymous(process, "Anonymous") + flower


def anonymous(process: int, line: str) -> int:
    """Bytes that the kernel reports of a process in a line of its account; 0 if it is gone."""
    with suppress(OSError):
        for said in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if said.startswith(f"{line}:"):
                return 1024 * int(said.split()[1])
    return 0


def measure(home: Path, silos: int, rounds: int, trust: str) -> dict[str, Any]:
    """One deployment with so many silos: what the journal and the silos' logs say."""
    prepare(home)
    widen(home)
    settings = experiment(home, silos, rounds)
    begun = time.time()
    memory = deploy(home, settings, trust)
    rows = read_rounds(home / "run")
    ends = {row.round: row.time for row in rows}
    there: dict[int, list[float]] = {}
    for name in settings.participant_names:
        for line in _lines(home / f"{name}.log"):
            if "answered train" in line["message"]:
                at = datetime.fromisoformat(line["time"]).timestamp()
                there.setdefault(line["round"], []).append(at)
    ledger = [row for row in read_ledger(home / "run") if row.kind == "train"]
    training = {
        number: max(row.numbers["seconds"] for row in ledger if row.round == number)
        for number in there
    }
    later = sorted(there)[1:]  # the first one waits for silos that are still loading
    whole = [ends[number] - ends[number - 1] for number in later]
    down = [statistics.fmean(there[number]) - ends[number - 1] for number in later]
    up = [ends[number] - statistics.fmean(there[number]) for number in later]
    beyond = [w - training[number] for w, number in zip(whole, later, strict=True)]
    return {
        "silos": silos,
        "trust": trust,
        "seconds_until_the_first_round_ended": ends[1] - begun,
        "seconds_a_round": whole,
        "seconds_a_round_beyond_training": statistics.median(beyond),
        "seconds_until_a_silo_has_answered": statistics.median(down),
        "seconds_from_there_to_the_end": statistics.median(up),
        "loads_of_each_silo": loads(home, settings),
        "update_bytes": max(row.up for row in ledger),
        "server_peak_memory": rows[-1].peak_memory,
        "server_and_flower_peak_memory": memory,
    }


def demo(home: Path) -> dict[str, Any]:
    """The demo's experiment in one process, and deployed: the hashes of both adapters."""
    words = ["clients_per_pass=off", f"rounds={DEMO_ROUNDS}", "evaluation.test=false"]
    own = loading.load(DEMO, [*words, f"output_dir={home / 'alone'}"])
    # In a process of its own, so that the silos' are not forked from one with a model in memory.
    alone = started(lambda: simulation.run(own), home / "alone.log")
    alone.join(PATIENCE)
    settings = loading.load(DEMO, [*words, f"output_dir={home / 'run'}"])
    deploy(home, settings)
    hashes = [
        hashlib.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()
        for folder in (home / "alone", home / "run")
    ]
    return {
        "experiment": str(DEMO.relative_to(ROOT)),
        "rounds": DEMO_ROUNDS,
        "adapters": hashes,
        "same": hashes[0] == hashes[1],
        "loads_of_each_silo": loads(home, settings),
    }


def loads(home: Path, settings: Experiment) -> list[int]:
    """How often each silo has loaded its base model."""
    logs = (_lines(home / f"{name}.log") for name in settings.participant_names)
    return [sum("loading" in line["message"] for line in lines) for lines in logs]


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def main() -> None:
    """Measure what is not known yet, and keep it."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--silos", type=int, nargs="+", default=[4, 32])
    words.add_argument("--rounds", type=int, default=6)
    words.add_argument("--anew", action="store_true")
    words.add_argument("--short", action="store_true", help="three rounds, kept out of the way")
    asked = words.parse_args()
    rounds, counts = (3, [4]) if asked.short else (asked.rounds, asked.silos)
    file = results("deployment")
    known = json.loads(file.read_text()) if file.exists() and not asked.anew else {}
    found = {"rounds": rounds, "deployments": known.get("deployments", [])}
    if "demo" in known:
        found["demo"] = known["demo"]
    wanted = [(counts[0], trust) for trust in TRUST] + [(count, NONE) for count in counts[1:]]
    for silos, trust in wanted:
        if not any((one["silos"], one["trust"]) == (silos, trust) for one in found["deployments"]):
            work = partial(measure, silos=silos, rounds=rounds, trust=trust)
            found["deployments"].append(_apart(work))
            keep("deployment", found)
    if not (asked.short or "demo" in found):
        found["demo"] = _apart(demo)
        keep("deployment", found)
    print(json.dumps(found, indent=2))


def _apart(work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What is measured in a folder of its own, and how long it took."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HANSE_CACHE"] = str(Path(folder) / "cache")
        start = time.perf_counter()
        return {**work(Path(folder)), "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    main()
