"""A silo's own copies of public rows and of models beside the trained one."""

from collections.abc import Mapping
from typing import Any

from hanse.deployment.silo.settings import SiloSettings
from hanse.errors import UserError
from hanse.experiment.declared import client_models
from hanse.experiment.schema import Experiment, build_algorithm


def public_rows(offered: Experiment, silo: SiloSettings) -> dict[str, Any] | None:
    """The settings of the public rows, with this silo's copy of them; None if it needs none.

    Raises UserError if the algorithm needs them here, and silo.yaml names no copy.
    """
    if offered.data.public is None or "clients" not in build_algorithm(offered).needs_public:
        return None
    if silo.data.public is None:
        raise UserError(
            f"{silo.name} has no copy of the experiment's public data; name it by data.public in "
            "its silo.yaml."
        )
    own = {"path": silo.data.public, "sha256": None}  # the envelope has the hash
    return {**offered.data.public.model_dump(mode="json"), **own}


def named_models(
    offered: Experiment, settings: Mapping[str, Any], silo: SiloSettings
) -> dict[str, Any]:
    """The settings of the models that clients use, with this silo's folders where it has some.

    settings: those of all models, by name, as the server gives them to this silo.
    """
    result = {}
    for name in client_models(offered):
        if not isinstance(settings.get(name), Mapping):
            raise UserError(f"models.{name} is {settings.get(name)!r:.80}, which is no section.")
        own = {"model_name_or_path": silo.models[name]} if name in silo.models else {}
        result[name] = {**settings[name], **own}
    return result
