"""The demands of an algorithm on models and rows, checked before a model is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a model that its files tell without its weights.

    name: as in the settings. classes: the scores that it gives a place in a text: those of label
        words, of tags, or of all tokens. heads: of attention, in each layer. kind: of architecture,
        such as llama. width: of its hidden states. None, or empty: not known.
    """

    name: str
    classes: int | None = None
    heads: int | None = None
    kind: str = ""
    width: int | None = None


class ModelRequirements:
    """Models beside the trained one, public rows, and kinds of rows that an algorithm uses."""

    # Models beside the trained one, by their names in `models`; `learner.models` has no others.
    client_models: ClassVar[tuple[str, ...]] = ()
    server_models: ClassVar[tuple[str, ...]] = ()
    # Of server_models: the whole model, where the trained one is an emulator of it, and its adapter
    # lies in bottom and top layers alone. The whole one gets the same adapter in its own layers.
    plugged_into: ClassVar[str] = ""
    needs_public: ClassVar[tuple[str, ...]] = ()  # whose learner has the split: server, clients
    co_trained: ClassVar[tuple[str, ...]] = ()  # those that train on the trained one's batches
    replaces_loss: ClassVar[tuple[str, ...]] = ()  # splits that it trains on by a loss of its own
    keeps: ClassVar[str] = ""  # the model of `personalized`, in `models`; empty: the trained one
    example_kinds: ClassVar[tuple[str, ...]] = ()  # those of objectives that fit; empty: all
    needs_validation: ClassVar[bool] = False  # the server scores models on its validation rows
    needs_factors: ClassVar[bool] = False  # the adapter is LoRA in its plain form: A and B alone
    resizes_adapter: ClassVar[bool] = False  # learners train parts of a fresh adapter (`configure`)

    @property
    def keeps_model_by(self) -> str:
        """The setting by which runs leave the model as it is; empty if they train it."""
        return ""

    @property
    def later_rounds(self) -> str:
        """A clause on the rounds after the first, if they are of another kind; else empty."""
        return ""

    def require(self, trained: ModelFacts, beside: Mapping[str, ModelFacts]) -> None:
        """Raise UserError for models of the server, or of one client, that do not fit.

        Halves check again what files do not tell. beside: the models beside the trained one.
        """
