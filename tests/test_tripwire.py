"""Pickles wherever files or bytes come in: nothing is unpickled, and nothing of them is run."""

import hashlib
import io
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import Parameter
from torch.optim import SGD

from hanse import atomic_files
from hanse.data.sources import files
from hanse.data.tokenization import token_cache as tokenized
from hanse.deployment.envelopes import BadEnvelopeError, Envelope, SiloReply
from hanse.deployment.sockets import unpack
from hanse.errors import UserError
from hanse.federation.client_memory import LostMemory, MemoryStore
from hanse.federation.constants import ConstantStore
from hanse.federation.messages import Reply, Request
from hanse.journal.checkpoints import latest
from hanse.learners.injection import adapter_files
from hanse.learners.load import load
from hanse.learners.models.model_hash import model_hash
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.training.checkpoint import TrainingCheckpoint
from hanse.randomness import RoundContext
from hanse.security import keys
from hanse.tensors.serialization import MessageError

RISKY = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn")
Refusals = (UserError, MessageError, LostMemory, BadEnvelopeError, ValueError)


class Wire:
    """Notes risky events, and imports of modules from a folder, while it is stretched."""

    def __init__(self) -> None:
        self.stretched, self.home, self.seen = False, "", list[str]()
        sys.addaudithook(self.hear)  # for as long as this process lives

    def hear(self, event: str, about: tuple[Any, ...]) -> None:
        if not self.stretched:
            return
        ours = event == "import" and str(about[1] or about[0]).startswith((self.home, "evil"))
        if event in RISKY or ours:
            self.seen.append(f"{event} {about[:2]}")


WIRE = Wire()


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    WIRE.stretched, WIRE.home, WIRE.seen = True, str(tmp_path), []
    yield WIRE
    WIRE.stretched = False


def pickles(marker: Path) -> dict[str, bytes]:
    """The same bomb as everybody would write it."""
    bomb = Bomb(marker)
    array, saved = io.BytesIO(), io.BytesIO()
    np.save(array, np.array([bomb], dtype=object), allow_pickle=True)
    torch.save({"weight": bomb}, saved)
    plain = pickle.dumps(bomb)
    return {".npy": array.getvalue(), ".pt": saved.getvalue(), ".pkl": plain, ".joblib": plain}


def data_files(bomb: bytes, home: Path, ending: str) -> None:
    for name in (f"rows{ending}", "rows.jsonl", "rows.csv", "rows.txt", "rows.json"):
        (home / name).write_bytes(bomb)
        for place in (home / name, home):
            with pytest.raises(Refusals):
                list(files.records(place))
        (home / name).unlink()


def parquet_file(bomb: bytes, home: Path, ending: str) -> None:
    (home / "rows.parquet").write_bytes(bomb)
    with pytest.raises(Refusals):
        list(files.records(home / "rows.parquet"))


def client_memory(bomb: bytes, home: Path, ending: str) -> None:
    name = f"round-00001-{hashlib.sha256(bomb).hexdigest()}.safetensors"
    (home / name).write_bytes(bomb)
    with pytest.raises(LostMemory):
        MemoryStore(home).open(1)


def run_checkpoint(bomb: bytes, home: Path, ending: str) -> None:
    (home / "state").mkdir()
    (home / "state" / f"00001-{hashlib.sha256(bomb).hexdigest()}.safetensors").write_bytes(bomb)
    assert latest(home) is None


def training_checkpoint(bomb: bytes, home: Path, ending: str) -> None:
    parameters = {"weight": Parameter(torch.zeros(2))}
    optimizer = SGD(parameters.values(), 0.1)
    note = TrainingCheckpoint(home, 0.0)
    note.begin(RoundContext(0, 1, "c0"), "start")
    note.save_if_due(1, parameters, optimizer, {"tokens": 1.0}, {"seen": torch.zeros(())})
    [file] = home.iterdir()
    file.write_bytes(bomb)
    assert note.restore(parameters, optimizer) is None
    atomic_files.write_hashed(note._file, bomb)  # with a hash that fits
    assert note.restore(parameters, optimizer) is None


def constants(bomb: bytes, home: Path, ending: str) -> None:
    (home / f"{'0' * 64}.safetensors").write_bytes(bomb)
    assert ConstantStore(home).find("0" * 64) is None


def token_cache(bomb: bytes, home: Path, ending: str) -> None:
    (home / f"x-{'0' * 64}.tokens").write_bytes(bomb)
    assert tokenized._read(home / "x.tokens") is None
    atomic_files.write_hashed(home / "x.tokens", bomb)
    assert tokenized._read(home / "x.tokens") is None


def over_the_network(bomb: bytes, home: Path, ending: str) -> None:
    parsers: tuple[Callable[[bytes], Any], ...] = (
        *(Request.parse, Reply.parse, Envelope.parse, SiloReply.parse, unpack),
    )
    header = json.dumps({"__metadata__": {"hanse": bomb.decode("latin-1")}}).encode()
    for data in (bomb, len(header).to_bytes(8, "little") + header):
        for parse in parsers:
            with pytest.raises(Refusals):
                parse(data)


def kit_files(bomb: bytes, home: Path, ending: str) -> None:
    (home / "silo-a.pub").write_bytes(bomb)
    (home / "silo-a.key").write_bytes(bomb)
    with pytest.raises(UserError):
        keys.read(home / "silo-a.pub")
    with pytest.raises(UserError):
        keys.read_signing(home / "silo-a.key")


def adapter_folder(bomb: bytes, home: Path, ending: str) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (home / "adapter_config.json").write_text(json.dumps(config))
    for name in ("adapter_model.bin", "adapter_model.safetensors"):
        (home / name).write_bytes(bomb)
        with pytest.raises(UserError):
            adapter_files.read(home)


INGRESSES = (
    *(data_files, parquet_file, client_memory, run_checkpoint, training_checkpoint, constants),
    *(token_cache, over_the_network, kit_files, adapter_folder),
)


@pytest.mark.parametrize("ending", [".npy", ".pt", ".pkl", ".joblib"])
def test_the_bombs_work(tmp_path: Path, ending: str, wire: Wire) -> None:
    """What follows would prove nothing otherwise."""
    data = io.BytesIO(pickles(tmp_path / "marker")[ending])
    if ending == ".npy":
        np.load(data, allow_pickle=True)
    elif ending == ".pt":
        torch.load(data, weights_only=False)
    else:
        pickle.load(data)
    assert (tmp_path / "marker").exists()
    assert {event.split()[0] for event in wire.seen} >= {"pickle.find_class", "os.system"}


@pytest.mark.parametrize("ingress", INGRESSES)
@pytest.mark.parametrize("ending", [".npy", ".pt", ".pkl", ".joblib"])
def test_no_ingress_unpickles(
    tmp_path: Path, ingress: Callable[..., None], ending: str, wire: Wire
) -> None:
    (tmp_path / "home").mkdir()
    ingress(pickles(tmp_path / "marker")[ending], tmp_path / "home", ending)
    assert wire.seen == [] and not (tmp_path / "marker").exists()


def _weights_elsewhere(model: Path, bomb: bytes) -> None:
    (model / "adapter_model.bin").write_bytes(bomb)
    _configure(model, transformers_weights="adapter_model.bin")


def _index_below(model: Path, bomb: bytes) -> None:
    """Transformers takes an index from below the folder, and what that names from anywhere."""
    (model / "more").mkdir()
    (model / "more" / "evil.bin").write_bytes(bomb)
    weights = load_file(model / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "evil.bin")}
    (model / "more" / "x.safetensors.index.json").write_text(json.dumps(index))
    _configure(model, transformers_weights="more/x.safetensors.index.json")


def _index_of_pickles(model: Path, bomb: bytes) -> None:
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").rename(model / "spare.safetensors")
    (model / "shard.bin").write_bytes(bomb)
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "shard.bin")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def _only_a_pickle(model: Path, bomb: bytes) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(bomb)


def _pickle_as_safetensors(model: Path, bomb: bytes) -> None:
    (model / "model.safetensors").write_bytes(bomb)


def _module(model: Path, bomb: bytes) -> None:
    (model / "evil.py").write_text("raise SystemExit\n")
    _configure(model, auto_map={"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"})


def _kernel(model: Path, bomb: bytes) -> None:
    _configure(model, attn_implementation="someone/evil-kernel")


def _adapter(model: Path, bomb: bytes) -> None:
    (model / "adapter_model.bin").write_bytes(bomb)
    (model / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))


def _configure(model: Path, **settings: Any) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **settings}))


MODELS = (
    *(_weights_elsewhere, _index_below, _index_of_pickles, _only_a_pickle),
    *(_pickle_as_safetensors, _module, _kernel, _adapter),
)


@pytest.mark.parametrize("spoil", MODELS)
def test_a_spoiled_model_folder_is_refused_unread(
    tmp_path: Path, tiny_llama: Path, spoil: Callable[[Path, bytes], None], wire: Wire
) -> None:
    model = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    spoil(model, pickles(tmp_path / "marker")[".pt"])
    for use in (lambda: load(BaseModelSettings(str(model), bf16=False)), lambda: model_hash(model)):
        with pytest.raises(UserError):
            use()
    assert wire.seen == [] and not (tmp_path / "marker").exists()


def test_pickles_beside_the_weights_are_left_alone(
    tmp_path: Path, tiny_llama: Path, wire: Wire
) -> None:
    """Metadata of safetensors, and files that nobody asks for."""
    model = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    bomb = pickles(tmp_path / "marker")
    weights = load_file(model / "model.safetensors")
    spoilt = {"format": "pt", "pickle": bomb[".pkl"].decode("latin-1")}
    save_file(weights, model / "model.safetensors", metadata=spoilt)
    names = ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth", "x.pkl")
    for name in names:
        (model / name).write_bytes(bomb[".pt"])
    (model / "transformers.py").write_text("raise SystemExit\n")
    load(BaseModelSettings(str(model), bf16=False))
    assert wire.seen == [] and not (tmp_path / "marker").exists()
