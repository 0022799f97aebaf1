"""The folder of an emulator, made of a model: its files, and emulator.json."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from hanse import atomic_files
from hanse.content_hash import content_hash
from hanse.data.example import Example
from hanse.learners.models import model_files, start_weights
from hanse.learners.models.emulators import record, sizes
from hanse.learners.models.emulators.compressor import Compressor
from hanse.learners.models.emulators.cut import Cut
from hanse.learners.models.emulators.disclosure import difference
from hanse.learners.models.emulators.distillation import CPU, Distillation, Losses, distill
from hanse.learners.models.emulators.record import DistillationRecord, EmulatorRecord, Source
from hanse.learners.models.emulators.shrink import Emulator, shrink
from hanse.learners.models.model_hash import model_hash
from hanse.learners.models.pretrained import LoadedModel, PretrainedModel

ENDS = 0.1  # share of the steps whose losses are the first and the last ones in the record


@dataclass(frozen=True)
class Made:
    """An emulator that was written, and the figures about it.

    adapter: parameters of bottom and top. emulator: of the emulator. size, whole_size: bytes of the
    emulator's and the whole model's weights.
    """

    record: EmulatorRecord
    adapter: int
    emulator: int
    size: int
    whole_size: int


def load(source: PretrainedModel, precise: bool) -> LoadedModel:
    """Load the model that an emulator is made of, in the precision of its files.

    precise: in float32, as distillation needs it.
    """
    return source.load(AutoModelForCausalLM, torch.float32 if precise else stored(source.config))


def stored(config: Any) -> torch.dtype:
    """The precision of a model's files, by its configuration."""
    dtype = getattr(config.get_text_config(), "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def make(
    source: PretrainedModel,
    loaded: LoadedModel,
    cut: Cut,
    compressor: Compressor,
    folder: Path,
    distillation: Distillation | None = None,
    examples: Sequence[Example] = (),
    device: torch.device = CPU,
) -> Made:
    """Write the emulator of a loaded model into a new folder.

    distillation: trains the middle on the examples, on the device; None: it stays as the compressor
    leaves it.
    """
    whole, dtype = loaded.model, stored(source.config)
    emulator = shrink(whole, cut, compressor)
    losses = distill(whole, emulator, examples, distillation, device) if distillation else []
    entry = EmulatorRecord(
        source=_source(source, whole),
        bottom=cut.bottom,
        top=cut.top,
        compressor=compressor.describe(),
        layers=emulator.layers,
        distillation=_distilled(distillation, examples, losses) if distillation else None,
        middle_error=float(f"{difference(whole, emulator):.3g}"),
    )
    made = Made(
        entry,
        sizes.adapter_parameters(whole, cut),
        sizes.parameters([emulator.model]),
        *(sizes.size([model.to(dtype)]) for model in (emulator.model, whole)),
    )
    _write(emulator, loaded.tokenizer, entry, folder)
    return made


def _write(emulator: Emulator, tokenizer: Any, entry: EmulatorRecord, folder: Path) -> None:
    """Write model, tokenizer and record."""
    with atomic_files.folder(folder) as aside:
        emulator.model.save_pretrained(str(aside))
        tokenizer.save_pretrained(str(aside))
        record.write(aside, entry)


def source_hash(name: str) -> str:
    """The hash of a model that has been loaded, as `model_hash` has it."""
    if file := model_files.gguf(name):
        return content_hash(file)
    return model_hash(start_weights.folder(name))


def _source(source: PretrainedModel, model: Any) -> Source:
    config = source.config.get_text_config()
    return Source(
        sha256=source_hash(source.name),
        model_type=source.config.model_type,
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        parameters=sizes.parameters([model]),
    )


def _distilled(
    settings: Distillation, examples: Sequence[Example], losses: Sequence[Losses]
) -> DistillationRecord:
    few = max(1, round(ENDS * len(losses)))
    return DistillationRecord(
        settings=asdict(settings),
        rows=len(examples),
        first=_mean(losses[:few]),
        last=_mean(losses[-few:]),
    )


def _mean(losses: Sequence[Losses]) -> Losses:
    return {name: sum(loss[name] for loss in losses) / len(losses) for name in losses[0]}
