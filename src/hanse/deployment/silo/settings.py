"""silo.yaml: a data owner's name, server, rows, and the policy for what a server may ask."""

import ipaddress
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, ValidationError, field_validator, model_validator

from hanse.audit.ownership.settings import OwnershipSettings
from hanse.data.formats.system_turns import System
from hanse.data.sources import hub
from hanse.data.sources.corpora import CORPORA
from hanse.deployment.silo.policy import OUTSIDE, Policy
from hanse.errors import UserError
from hanse.experiment.schema import ClientName
from hanse.experiment.sections import (
    Encoding,
    SettingsModel,
    Share,
    Word,
    refuse_without_text,
)
from hanse.experiment.validation import SettingError, explain
from hanse.journal import yaml_text
from hanse.learners.models.model_files import PACKAGED
from hanse.registry import suggestion
from hanse.security import trusted_code

WHOLE = "a silo"  # the name of a whole file of these settings in messages


class Rows(SettingsModel):
    """The place of a silo's rows, and the settings by which they are read.

    The settings are those of an experiment's `data` that concern one client. A server's values of
    those that choose and read rows are refused unless the policy lists them in `data_settings`.
    The experiment alone says how rows are held out for the server and divided, and if only the last
    answer of a conversation is learned (`mask_history`).
    public: this silo's copy of the experiment's public data, for algorithms that need it here. The
        server's settings say how its rows are read.
    """

    path: str
    columns: dict[str, str] | None = None
    filter: dict[str, str] | None = None
    skip_invalid: bool | None = None
    encoding: Encoding | None = None
    system: System | None = None
    template: str | None = None
    labels: dict[str, Word] | None = None
    client_test: Share | None = None
    public: str | None = None

    @model_validator(mode="after")
    def _asks_for_text(self) -> "Rows":
        if self.template is not None:
            refuse_without_text(self.template, "data.template")
        return self

    @property
    def overrides(self) -> dict[str, Any]:
        """The settings that are given, as in an experiment's `clients.<name>.data`."""
        return self.model_dump(exclude_none=True, exclude={"public"})


class SiloSettings(SettingsModel):
    """The settings of one silo. Loading the file makes its paths absolute.

    name: the client's name in the federation.
    server: host:port of the server's SuperLink.
    kit: the folder with this silo's keys and the files that the server's administrator sent; it may
        be left out only for a server on this machine.
    state: the folder for client memory, checkpoints and logs.
    model: the path of the base model here; none: the one that the experiment names.
    models: the paths of models beside the base model here, by the names that the experiment gives
        them; for other names it is the one that the experiment names.
    cache: the folder for converted models and tokens; none: the usual one.
    hub: whether models and data may be downloaded; otherwise `hanse join` works offline.
    checkpoint_seconds: seconds of training between two checkpoints, from which a killed silo goes
        on.
    ownership: this silo's mark in what it trains, with the file of its key; none: no mark.
    """

    name: ClientName
    server: str
    kit: Path | None = None
    data: Rows
    state: Path
    model: str | None = None
    models: dict[ClientName, str] = Field(default={})
    cache: Path | None = None
    hub: bool = False
    checkpoint_seconds: NonNegativeFloat = 60.0
    ownership: OwnershipSettings | None = None
    policy: Annotated[Policy, Field(default_factory=Policy)]

    @field_validator("kit", "model", "cache", "ownership", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("server")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
            raise ValueError(
                f"server is {value!r}; write the host and the port of the server, "
                "such as 127.0.0.1:8000."
            )
        return value

    @model_validator(mode="after")
    def _known_unless_here(self) -> "SiloSettings":
        if self.kit is None and not self.loopback:
            raise ValueError(
                f"server is {self.server}, which is not this machine, and without kit neither "
                "side could tell who the other is; run `hanse kit key` and name its folder in kit."
            )
        return self

    @model_validator(mode="after")
    def _marks_as_its_policy_says(self) -> "SiloSettings":
        if self.policy.marks == "require" and self.ownership is None:
            raise ValueError(
                "policy.marks requires this silo's own mark, and there is none; name the file of "
                "its key in ownership (`hanse ownership key` makes one), or leave marks out."
            )
        if self.policy.marks == "refuse" and self.ownership is not None:
            raise ValueError(
                "policy.marks refuses marks, and ownership names a key; leave one of them out."
            )
        return self

    @property
    def host(self) -> str:
        """The server's host, an IPv6 address without its brackets."""
        return self.server.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The server's port."""
        return int(self.server.rpartition(":")[2])

    @property
    def loopback(self) -> bool:
        """True if the server is on this machine."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return true for a loopback address and "localhost"; no name is looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load(path: Path) -> SiloSettings:
    """The settings in a YAML file; relative paths start at the file's folder.

    Raises UserError with the line of the mistake.
    """
    values, text = yaml_text.read(path, "silo's settings")
    try:
        silo = _built(values, path.resolve().parent)
    except SettingError as error:
        line = yaml_text.line(text, error.place)
        raise UserError(f"{path}:{line}: {error}" if line else f"{path}: {error}") from None
    if silo.kit is not None:  # members of a group may edit their policy together
        trusted_code.refuse_writable(
            path, "change what this silo lets a server do", trusted_code.EVERYBODY
        )
    return silo


def _built(values: yaml_text.Values, home: Path) -> SiloSettings:
    try:
        silo = SiloSettings.model_validate(values)
    except ValidationError as error:
        raise explain(error, SiloSettings, whole=WHOLE) from None
    full = {key: home / value for key in ("kit", "state", "cache") if (value := getattr(silo, key))}
    rows = silo.data.model_copy(
        update={
            key: _path_of_rows(place, home, key)
            for key in ("path", "public")
            if (place := getattr(silo.data, key)) is not None
        }
    )
    model = silo.model and _beside(silo.model, home, PACKAGED)
    models = {name: _beside(path, home, PACKAGED) for name, path in silo.models.items()}
    update: dict[str, Any] = {**full, "data": rows, "model": model, "models": models}
    update |= {"policy": _with_full_paths(silo.policy, home)}
    if silo.ownership is not None:
        key = home / Path(silo.ownership.key).expanduser()
        update["ownership"] = replace(silo.ownership, key=str(key))
    return silo.model_copy(update=update)


def _with_full_paths(policy: Policy, home: Path) -> Policy:
    """The policy with absolute paths of the files of parts from outside the package."""
    full = {}
    for setting in OUTSIDE:
        allowed = getattr(policy, setting) or ()
        for name in allowed:
            file, colon, _ = name.partition(":")
            if colon and not (home / file).is_file():
                raise SettingError(
                    f"policy.{setting} names {name!r:.80}, but there is no file {home / file}.",
                    ("policy", setting),
                )
            if colon:  # the owner names it here, so it may run; a server cannot grant this
                trusted_code.grant((home / file).resolve(), lasting=False)
        if allowed:
            full[setting] = tuple(str(home / name) if ":" in name else name for name in allowed)
    return policy.model_copy(update=full)


def _path_of_rows(path: str, home: Path, setting: str) -> str:
    """The absolute path of a silo's rows, or the name of a data set; raises SettingError.

    setting: the one in `data` that names them.
    """
    place = _beside(path, home, CORPORA)
    if place in CORPORA or os.path.exists(place) or hub.is_name(path):
        return place
    raise SettingError(
        f"data.{setting}: there is no {path!r:.200}{suggestion(path, CORPORA)} in {home}; give a "
        "file or a folder of files.",
        ("data", setting),
    )


def _beside(path: str, home: Path, names: Any) -> str:
    """The absolute path of a file beside silo.yaml; a short name or a missing file unchanged."""
    place = str(home / Path(path).expanduser())
    return place if path and path not in names and os.path.exists(place) else path
