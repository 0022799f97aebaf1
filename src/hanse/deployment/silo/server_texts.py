"""Refuse text that a server may not give: an allow-list over the settings of every part.

Numbers, switches and choices among listed words are allowed. A setting that takes text is refused
unless its part marks it with the text that a server may give (`registry.ServerText`); a part
without marks takes none. Text could name a file, a tokenizer or a host, or be a regular expression
that takes forever.
"""

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hanse import registry
from hanse.errors import UserError
from hanse.experiment.part_kinds import ADAPTER, AT_SILOS, PartKind
from hanse.learners.adapters.peft import methods
from hanse.registry import ServerText


def refuse_texts(values: Mapping[str, Any]) -> None:
    """Raise UserError for settings of parts that a server may not give; it names all of them.

    values: a resolved experiment, in which every part is {name: {setting: value}}.
    """
    reasons = [
        reason
        for kind in AT_SILOS
        for section in (values, *(values["models"].values() if kind is ADAPTER else ()))
        for name, settings in _named(section, kind)
        for reason in _reasons(kind, name, settings)
    ]
    if reasons:
        raise UserError("; ".join(reasons) + ".")


def _named(values: Mapping[str, Any], kind: PartKind) -> Iterator[tuple[str, Any]]:
    """The parts of a kind that are named: each name with its settings."""
    for spec in kind.specs(values):
        for name, settings in spec.items() if isinstance(spec, Mapping) else ():
            if kind is ADAPTER and name in methods() and name not in ADAPTER.names():
                yield "peft", {"method": name, "settings": settings}  # under PEFT's own name
            else:
                yield name, settings


def _reasons(kind: PartKind, name: str, settings: Any) -> Iterator[str]:
    if not isinstance(settings, Mapping):  # a name alone, or `from`, which the policy checks
        return
    part = kind.find(name)
    hints = get_type_hints(part, include_extras=True)
    defaults = {setting.name: setting.default for setting in registry.settings(part)}
    for setting, value in settings.items():
        mark = _mark(hints.get(setting))
        if repr(value) == defaults.get(setting) or not takes_text(hints.get(setting)):
            continue
        if mark is None:
            yield (
                f"{kind.setting}.{name}.{setting} came as {value!r:.80}, and a server may not set "
                "it: it would be read on the silo's machine"
            )
        elif not mark.fits(value):
            yield (
                f"{kind.setting}.{name}.{setting} came as {value!r:.80}; a server may give "
                f"{mark.wanted}"
            )


def _mark(hint: Any) -> ServerText | None:
    metadata = getattr(hint, "__metadata__", ())
    return next((mark for mark in metadata if isinstance(mark, ServerText)), None)


def takes_text(hint: Any) -> bool:
    """Return true if a type may hold free text at any depth; numbers and listed words do not."""
    if get_origin(hint) is Annotated:
        return takes_text(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType, tuple, list, dict):
        return any(takes_text(inner) for inner in get_args(hint) if inner is not Ellipsis)
    return get_origin(hint) is not Literal and hint not in (bool, int, float, NoneType)
