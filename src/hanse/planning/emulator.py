"""hanse emulator: from a model, and texts to distill on, to the folder of its emulator."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hanse import registry
from hanse.data.example import Example
from hanse.data.formats.row import Row
from hanse.data.sources import corpora
from hanse.data.tokenization.token_cache import Rendering
from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.learners.models.emulators.compressor import FOLDER, Compressor

with lazy_imports():
    import torch

    from hanse.learners import load
    from hanse.learners.models import pretrained
    from hanse.learners.models.emulators import cut as cutting
    from hanse.learners.models.emulators import distillation as distilling
    from hanse.learners.models.emulators import distillation_memory as memory
    from hanse.learners.models.emulators import make as making
    from hanse.learners.training import out_of_memory
    from hanse.reports import formatting

log = logging.getLogger(__name__)

DEFAULT_LENGTH = 512  # tokens
TEMPLATE = "{text}"  # of a labelled row, which is read as its text


@dataclass(frozen=True)
class Texts:
    """The rows that a middle is distilled on, and the settings of its distillation.

    path: as in `data.path`. max_length: the most tokens of an example; None: 512, or as many as the
    model reads. distillation: settings that are not the default ones.
    """

    path: str
    max_length: int | None = None
    distillation: Mapping[str, Any] = field(default_factory=dict)


def make(
    model: str,
    folder: Path,
    bottom: int,
    top: int,
    spec: str | Mapping[str, Any],
    texts: Texts | None,
) -> "making.Made":
    """Write the emulator of a model into a new folder.

    spec: the compressor, as a name or {name: settings}. texts: None: the middle is not distilled.
    Raises UserError for a model that cannot be cut so, before its weights are loaded.
    """
    compressor = built(spec)
    if texts is not None and not compressor.trains:
        raise UserError(
            f"the compressor {registry.split(FOLDER, spec)[0]} leaves a middle that cannot be "
            "trained, so there is nothing to distill; leave --texts out, or choose layer_drop or "
            "low_rank."
        )
    source = pretrained.find(model)
    parts = cutting.cut(model, source.config, bottom, top)
    compressor.kept(parts.middle)  # raises UserError for more layers than there are
    if texts is None:
        loaded = making.load(source, precise=False)
        return making.make(source, loaded, parts, compressor, folder)
    distillation = _distillation(texts.distillation)
    examples = _examples(_rows(texts), source, texts)
    device = _device(
        memory.estimate(source.config, parts, compressor, examples, distillation.batch_size)
    )
    loaded = making.load(source, precise=True)
    return making.make(source, loaded, parts, compressor, folder, distillation, examples, device)


def _device(needed: "memory.DistillationMemory") -> "torch.device":
    """The device of a distillation: a GPU where there is one with enough free memory, or the CPU.

    Logs the memory that it needs. Raises UserError if far less is free.
    """
    device = load.device_of("auto")
    free = out_of_memory.free_memory(device)
    if device.type != "cpu" and free < needed.total:
        log.warning("the GPU has %s of free memory, too little to distill there", _bytes(free))
        device = load.device_of("cpu")
        free = out_of_memory.free_memory(device)
    _refuse_shortage(needed, free)
    log.log(
        logging.INFO if needed.total <= free else logging.WARNING,
        "distilling on the %s needs about %s of memory, of %s that are free",
        *("CPU" if device.type == "cpu" else "GPU", _bytes(needed.total), _bytes(free)),
    )
    return device


def _refuse_shortage(needed: "memory.DistillationMemory", free: int) -> None:
    """Raise UserError if not even models and optimizer fit, or half of the estimate."""
    if free < max(needed.held, needed.total / 2):
        raise UserError(
            f"the distillation needs about {_bytes(needed.total)} of memory, of which models and "
            f"optimizer take {_bytes(needed.held)}, and {_bytes(free)} are free; lower "
            "--batch-size or --max-length, let the compressor keep fewer layers, or leave --texts "
            "out."
        )


def _bytes(count: float) -> str:
    return formatting.bytes_(count)


def _distillation(settings: Mapping[str, Any]) -> "distilling.Distillation":
    """The settings of a distillation; raises UserError for one that is out of its range."""
    try:
        return TypeAdapter(distilling.Distillation).validate_python(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        allowed = first["msg"][:1].lower() + first["msg"][1:]
        raise UserError(f"--{name} is {first['input']!r:.80}; {allowed}.") from None


def built(spec: Any) -> Compressor:
    """The compressor that a spec describes; raises UserError for none."""
    if not isinstance(spec, str | Mapping):
        raise UserError(
            f"--compressor is {spec!r:.80}; write a name, or {{name: {{setting: value}}}}, such "
            "as {layer_drop: {drop: 0.2}}."
        )
    part = registry.build(FOLDER, spec)
    if not isinstance(part, Compressor):
        raise UserError(f"{spec} is no compressor; choose {', '.join(registry.names(FOLDER))}.")
    return part


def _rows(texts: Texts) -> list[Row]:
    """The rows as texts, without labels and tags."""
    rows = corpora.load(texts.path)
    if rows[0].kind == "preference":
        raise UserError(
            f"{texts.path} has {rows[0].parts}, and a middle is distilled on texts, conversations "
            "or answers; name another file in --texts."
        )
    return [replace(row, label=None, words=(), tags=()) for row in rows]


def _examples(rows: list[Row], source: "pretrained.PretrainedModel", texts: Texts) -> list[Example]:
    """The rows as tokens; a text that is longer than max_length becomes several examples."""
    config = source.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    most = texts.max_length or min(DEFAULT_LENGTH, positions or DEFAULT_LENGTH)
    if positions is not None and most > positions:
        raise UserError(
            f"--max-length is {most}, but {source.name} reads at most {positions} tokens; lower it."
        )
    rendering = Rendering(
        *(source.tokenizer(), "tokens", {}, TEMPLATE, most, config.vocab_size, True)
    )
    return [example for row in rendering.examples(rows) for example in row]
