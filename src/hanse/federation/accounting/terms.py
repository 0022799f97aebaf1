"""The terms of a mechanism of privacy that can be refused before a run is known."""

from hanse.errors import UserError


def refuse_incomplete(
    name: str,
    clip: float | None,
    epsilon: float | None,
    noise_multiplier: float | None,
    no_clip: str,
) -> None:
    """Raise UserError for settings of the mechanism `name` that promise nothing, or contradict.

    no_clip: the end of the sentence on a missing clip norm: what it bounds, and what to set.
    """
    setting = f"privacy.{name}."
    if clip is None:
        raise UserError(f"{setting}clip is none, and without a bound {no_clip}.")
    if epsilon is None and noise_multiplier is None:
        raise UserError(
            f"{name} has neither epsilon nor noise_multiplier; set {setting}epsilon to what the "
            "whole run may cost, such as 8."
        )
    if epsilon is not None and noise_multiplier == 0:
        raise UserError(
            f"{setting}noise_multiplier is 0, which keeps no epsilon, and {setting}epsilon is "
            f"{epsilon:g}; leave noise_multiplier out to have it computed."
        )
