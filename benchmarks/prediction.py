"""What `hanse check` predicts beside what `hanse run` then takes: seconds, memory, bytes.

Each in a process of its own, as a user would. Writes benchmarks/results/prediction.json.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from measured import keep

from hanse.journal import run_folder

QUICKSTART = Path(__file__).parent.parent / "experiments" / "quickstart.yaml"
PREVIEW = """
import json, sys
from pathlib import Path
from hanse.experiment.loading import load
from hanse.planning.preview.estimate import preview
found = preview(load(Path(sys.argv[1]), sys.argv[2:]))
size = sum(traffic.down + traffic.up for traffic in found.traffic["train"].values())
print(json.dumps({"seconds": found.seconds, "memory": found.memory, "bytes": size}))
"""


def main() -> None:
    """Predict, run, compare."""
    words = sys.argv[1:] or ["rounds=2", "data.test=400"]
    command = [sys.executable, "-c", PREVIEW, str(QUICKSTART), *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    predicted = json.loads(done.stdout.splitlines()[-1])
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "run"
        command = [sys.executable, "-m", "hanse", "run", str(QUICKSTART), *words]
        subprocess.run([*command, f"output_dir={folder}"], check=True)
        records = run_folder.read_rounds(folder)
        ledger = run_folder.read_ledger(folder)
    trained = [row for row in ledger if row.kind == "train" and row.round == 1]
    measured = {
        "seconds": sum(sum(record.seconds.values()) for record in records),
        "memory": records[-1].peak_memory,
        "bytes": sum(row.down + row.up for row in trained),
    }
    ratio = {name: predicted[name] / measured[name] for name in measured}
    print(json.dumps(ratio))
    print(keep("prediction", {"predicted": predicted, "measured": measured, "ratio": ratio}))


if __name__ == "__main__":
    main()
