"""Whole runs of the tiny model on a GPU: the same code, and the same results as far as they go."""

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hanse import errors
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.learners.batched_clients import train
from hanse.learners.training import loop
from hanse.learners.training.out_of_memory import is_shortage
from hanse.simulation import run as simulation

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for products that repeat bit for bit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: torch sees no GPU"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning"),  # a prototype
]

UPPER = "adapter.lora.layers_to_transform=[1]"


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """No TF32; and afterwards all as it was."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def run(experiment_file: Path, tmp_path: Path) -> Any:
    """Runs the small experiment on the GPU under another name; its folder."""

    def go(name: str, *words: str, stop: threading.Event | None = None) -> Path:
        own = ["model.device=cuda", f"output_dir={tmp_path / name}", *words]
        return simulation.run(load(experiment_file, own), stop=stop)

    return go


def _adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def _losses(folder: Path) -> list[float]:
    """Of validation, round by round; the first is that of the base model."""
    return [record.validation["loss"] for record in run_folder.read_rounds(folder)]


def test_a_cohort_ends_where_one_after_another_does(run: Any) -> None:
    alone, together = (
        _adapter(run(f"c{own}", "rounds=1", f"clients_per_pass={own}")) for own in ("off", 3)
    )
    assert alone.keys() == together.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=1e-4, rtol=0)


@pytest.mark.parametrize("together", ["off", "3"])
def test_no_step_waits_for_the_gpu(
    run: Any, monkeypatch: pytest.MonkeyPatch, together: str
) -> None:
    """By torch's own detector, from the second step of each round on; dropout and FedProx too."""
    guarded = []

    def steps(items: Iterable[Any], *_: Any, **__: Any) -> Iterator[Any]:
        for index, item in enumerate(items):
            torch.cuda.set_sync_debug_mode("error" if index else "default")
            guarded.append(index)
            yield item
        torch.cuda.set_sync_debug_mode("default")

    for module in (train, loop):
        monkeypatch.setattr(module, "track", steps)
    run(
        "a",
        f"clients_per_pass={together}",
        "adapter.lora.lora_dropout=0.1",
        "algorithm.fedprox.mu=0.1",
    )
    assert max(guarded) > 0


@pytest.mark.parametrize("together", ["off", "3"])
def test_bfloat16_trains(run: Any, together: str) -> None:
    losses = _losses(run("a", "model.bf16=true", f"clients_per_pass={together}"))
    assert losses[-1] < losses[0]


@pytest.mark.filterwarnings("ignore")  # of bitsandbytes, about matrices as narrow as these
@pytest.mark.parametrize("together", ["off", "3"])
def test_nf4_trains(run: Any, together: str) -> None:
    pytest.importorskip("bitsandbytes")
    losses = _losses(run("a", "model.quantization=nf4", f"clients_per_pass={together}"))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("together", ["off", "3"])
def test_resume_ends_in_the_same_adapter_bit_for_bit(run: Any, together: str) -> None:
    torch.use_deterministic_algorithms(True)
    whole = run("whole", f"clients_per_pass={together}")
    stop = threading.Event()
    stop.set()
    with pytest.raises(errors.StoppedError):
        run("stopped", f"clients_per_pass={together}", stop=stop)
    folder = Path(whole).parent / "stopped"
    assert len(run_folder.read_rounds(folder)) < len(run_folder.read_rounds(whole))
    resumed = _adapter(simulation.resume(folder))
    for name, tensor in _adapter(whole).items():
        assert torch.equal(resumed[name], tensor)


def test_layers_below_the_adapters_may_be_left_out(run: Any) -> None:
    found = [_losses(run(own, UPPER, f"model.activation_cache={own}")) for own in ("true", "false")]
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_a_shortage_is_known_as_one() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50, device="cuda")
    assert is_shortage(raised.value)
