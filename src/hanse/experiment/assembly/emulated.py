"""Preconditions of a run whose trained model is an emulator of a whole one at the server."""

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from hanse.errors import UserError
from hanse.experiment.adapter_choice import AnyAdapter
from hanse.experiment.assembly.resources import adapter_settings
from hanse.experiment.schema import Experiment, build_algorithm
from hanse.learners.injection.adapter import Adapter
from hanse.learners.models import pretrained
from hanse.learners.models.emulators import disclosure, record
from hanse.learners.models.emulators.record import EmulatorRecord
from hanse.learners.models.model_hash import hash_of
from hanse.registry import name_of

LAYERS = "layers_to_transform"
NUMBERED = re.compile(r"(^|\.)\d+(\.|$)|\\d")  # a layer's number in a module's name, or a pattern
KINDS = "lora, ia3, houlsby, pfeiffer, lora_xs or full"


def prepared(experiment: Experiment, server: bool) -> Experiment:
    """The experiment with the adapter of the whole model: that of the emulator, in its own layers.

    Raises UserError for a model that is no emulator of the whole one, and for an adapter outside of
    the emulator's bottom and top. No weights are loaded. server: the whole model is here.
    """
    name = build_algorithm(experiment).plugged_into
    if not name:
        return experiment
    entry = _record(experiment)
    for kind in adapter_settings(experiment).kinds:
        _refuse_outside(experiment, kind, entry)
    if not server:
        return experiment
    _refuse_other_source(experiment, name, entry)
    named = experiment.models[name]
    adapter = _in_whole(adapter_settings(experiment), entry)
    if named.adapter not in (None, adapter):
        raise UserError(
            f"models.{name} gets the adapter of `adapter` in its own layers, but models.{name}."
            "adapter is another one; leave that out."
        )
    models = {**experiment.models, name: replace(named, adapter=adapter)}
    return experiment.model_copy(update={"models": models})


def remarks(experiment: Experiment, server: bool) -> Iterator[str]:
    """Remarks on who has which model. server: the whole model is here."""
    name = build_algorithm(experiment).plugged_into
    if not (name and server):
        return
    entry, emulator = _record(experiment), experiment.model.model_name_or_path
    whole = experiment.models[name].model_name_or_path
    middle, of = (count - entry.bottom - entry.top for count in _depths(entry))
    yield (
        f"clients train {emulator}, an emulator whose middle has {middle} of {of} layers "
        f"({', '.join(entry.compressor)}), and have no other model; only the server has "
        f"models.{name} ({whole}), which gets what they train; its scores begin with {name}."
    )
    yield f"{disclosure.sentence(entry, emulator)}."
    if entry.distillation is not None and entry.distillation.rows_sha256 is not None:
        yield (
            f"{record.FILE} of {emulator}, which silos may get, has rows_sha256, by which they can "
            "test guesses of the texts that it was distilled on; take that line out of the file."
        )
    if hash_of(whole) is None:
        yield (
            f"models.{name} ({whole}) is not on this machine yet, so its hash is not compared with "
            f"that in {record.FILE}."
        )


def _depths(entry: EmulatorRecord) -> tuple[int, int]:
    return len(entry.layers), entry.source.layers


def _record(experiment: Experiment) -> EmulatorRecord:
    """The record of the trained model; raises UserError if it is no emulator."""
    model = experiment.model.model_name_or_path
    entry = record.of_model(model)
    if entry is None:
        algorithm = type(build_algorithm(experiment)).__name__
        raise UserError(
            f"{algorithm} trains an emulator, but {model} has no {record.FILE}; make one with "
            f"`hanse emulator {model} --output FOLDER`, set model.model_name_or_path=FOLDER, and "
            f"let models.whole.model_name_or_path be {model}."
        )
    return entry


def _refuse_outside(experiment: Experiment, kind: Adapter, entry: EmulatorRecord) -> None:
    """Raise UserError for an adapter that is not in the emulator's bottom and top alone."""
    name, allowed = name_of(kind), entry.adapter_layers
    settings = {field.name: getattr(kind, field.name) for field in fields(kind)}  # type: ignore[arg-type]
    if LAYERS not in settings:
        raise UserError(
            f"an emulator's bottom and top layers alone are trained, and adapter.{name} cannot be "
            f"kept to some layers; choose {KINDS}, with {LAYERS}: {allowed}."
        )
    source = experiment.adapter.source
    if settings[LAYERS] is None and source is not None:
        raise UserError(
            f"the adapter in {source} does not tell its layers, and an emulator's bottom and top "
            f"alone are trained; begin with a fresh adapter, and {LAYERS}: {allowed}."
        )
    outside = sorted({*(settings[LAYERS] or ())} - {*allowed})
    if settings[LAYERS] is None or outside:
        what = f"names {', '.join(map(str, outside))}" if outside else "is none, so all are trained"
        raise UserError(
            f"adapter.{name}.{LAYERS} {what}, but of the emulator only bottom and top are "
            f"trained; set adapter.{name}.{LAYERS}={str(allowed).replace(' ', '')}."
        )
    for setting in ("target_modules", "target_parameters", "rank_pattern", "feedforward_modules"):
        for text in _texts(settings.get(setting)):
            if NUMBERED.search(text):
                raise UserError(
                    f"adapter.{name}.{setting} has {text!r:.80}, which may name layers by their "
                    "numbers, and these are others in the whole model; write ends of names, such "
                    "as q_proj."
                )


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(text) for text in value or ()]


def _in_whole(adapter: Adapter, entry: EmulatorRecord) -> AnyAdapter:
    """The adapter with the numbers that its layers have in the whole model."""
    kinds = {}
    for kind in adapter.kinds:
        own: Any = kind
        layers = tuple(entry.layers[number] for number in own.layers_to_transform)
        kinds[name_of(kind)] = replace(own, layers_to_transform=layers)
    return AnyAdapter(**kinds)


def _refuse_other_source(experiment: Experiment, name: str, entry: EmulatorRecord) -> None:
    """Raise UserError unless the whole model is the one that the emulator was made of."""
    emulator, path = (
        model.model_name_or_path for model in (experiment.model, experiment.models[name])
    )
    both = f"models.{name} is {path}, which is not the model that {emulator} is an emulator of: "
    config = pretrained.find(path).config
    text, source = config.get_text_config(), entry.source
    shape = (config.model_type, text.num_hidden_layers, text.hidden_size)
    wanted = (source.model_type, source.layers, source.hidden_size)
    if shape != wanted:
        have, want = ("a {} with {} layers of width {}".format(*one) for one in (shape, wanted))
        raise UserError(f"{both}it is {have}, and that was {want}; name the model it was made of.")
    digest = hash_of(path)
    if digest not in (None, source.sha256):
        raise UserError(
            f"{both}its hash is {digest:.12}…, and {record.FILE} has {source.sha256:.12}…; name "
            "the model it was made of, or make the emulator again."
        )
