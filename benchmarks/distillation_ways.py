"""The rows of benchmarks/distillation.py: models at silos and server, settings, learning rates."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from protocol import pooled
from rates import Family

SILOS = tuple(f"silo-{number}" for number in range(1, 5))
FOLDER = "../runs/unequal-models"
LARGE, SMALL, MENTOR, GPT2 = "SmolLM2-135M", "first 10 layers", "first 20 layers", "GPT-2"
UNEQUAL = "unequal"
PLACES = {
    LARGE: ("smollm2-135m", [26, 27, 28, 29]),
    SMALL: (f"{FOLDER}/first-10", [6, 7, 8, 9]),
    MENTOR: (f"{FOLDER}/first-20", [16, 17, 18, 19]),
    GPT2: (f"{FOLDER}/gpt2", [0, 1, 2, 3]),
}
MIXED = dict(zip(SILOS, (SMALL, SMALL, MENTOR, GPT2), strict=True))  # as in the experiment's file
STEPS = 30  # of the server in a round: once over the public reviews, as feddistill and fedmkt do
TEXT = ("objective=sft", "evaluation.tasks=[classification]")

# Families of learning rates: of what silos train, and of the large model on public reviews.
AT_SILOS, AT_SERVER = "at silos", "at the server"


def model(name: str, *silos: str) -> tuple[str, ...]:
    """The settings that give the server and these silos a model, with LoRA in its upper layers."""
    path, layers = PLACES[name]
    sections = ("", *(f"clients.{silo}." for silo in silos))
    return tuple(
        word
        for section in sections
        for word in (
            f"{section}model.model_name_or_path={path}",
            f"{section}adapter.lora.layers_to_transform={layers}",
        )
    )


def beside(name: str, models: str) -> str:
    """The setting that gives an algorithm this model beside the trained one."""
    path, layers = PLACES[models]
    lora = f"r: 8, lora_alpha: 16, target_modules: all-linear, layers_to_transform: {layers}"
    return f"models={{{name}: {{model_name_or_path: {path}, adapter: {{lora: {{{lora}}}}}}}}}"


@dataclass(frozen=True)
class Part:
    """One run of a row, which rows may share.

    name: as a part of its folder's name. silos: those whose own models it trains and scores.
    at_server: whether what it trains besides is the large model, by that family's rate.
    """

    name: str
    words: tuple[str, ...]
    silos: tuple[str, ...] = SILOS
    at_server: bool = True


@dataclass(frozen=True)
class Way:
    """One row: its runs, and the models that it scores.

    at_silos, at_server: names of the models; empty: no score, or none that is a result.
    score: the evaluation of the server's model. trained: False of models as they are.
    """

    parts: tuple[Part, ...]
    at_silos: str = ""
    at_server: str = ""
    score: str = "test-classification"
    trained: bool = True

    @property
    def together(self) -> bool:
        """Whether silos send something that is learned."""
        return self.trained and self.parts[0].silos == SILOS


def alone(models: Mapping[str, str], *words: str) -> tuple[Part, ...]:
    """A run for each of these silos, which trains its model on its own reviews."""
    kind = "alone-texts" if words else "alone"
    own = ("evaluation.test=false", *words)
    return tuple(
        Part(
            f"{kind}-{Path(PLACES[name][0]).name}-{silo}",
            (*plain(name), *own, f"participants=[{silo}]"),
            (silo,),
        )
        for silo, name in models.items()
    )


def each(name: str) -> dict[str, str]:
    """The same model at all silos."""
    return dict.fromkeys(SILOS, name)


def fedmkt(settings: str) -> Way:
    """A row of fedmkt with these settings."""
    name = "fedmkt" + "".join(filter(str.isalnum, settings))
    return Way((Part(name, (f"algorithm={{fedmkt: {settings}}}", *TEXT)),), UNEQUAL, LARGE)


def plain(name: str) -> tuple[str, ...]:
    """The settings of averaging one model of all silos."""
    return "algorithm=fedavg", "data.public=none", *model(name, *SILOS)


PUBLIC_ROWS = Part(
    "public",
    (
        *plain(LARGE),
        *(f"data.path={FOLDER}/public.jsonl", "data.pooled=true", "data.client_test=0"),
    ),
    (),
)
AVERAGED = Part("fedavg", plain(SMALL))
ONE_PLACE = Part(
    "centralised",
    (*plain(SMALL), *pooled(len(SILOS)), "data.client_test=0"),
    (),
    at_server=False,
)
CO_TUNED = Part(
    "fedcollm",
    (
        f"algorithm={{fedcollm: {{public_steps: {STEPS}}}}}",
        *(*model(SMALL, *SILOS), beside("large", LARGE)),
    ),
)
LABELS_ALONE = Part(
    "fedcollm-labels",
    (
        f"algorithm={{fedcollm: {{public_steps: {STEPS}, strength: 0}}}}",
        *(*model(SMALL, *SILOS), beside("large", LARGE)),
    ),
)
TAUGHT = Part(
    "fedkd",
    (
        *("algorithm=fedkd", "data.public=none"),
        *(*model(SMALL, *SILOS), beside("mentor", MENTOR)),
    ),
)
MEAN_LOGITS = Part("feddistill", ("algorithm=feddistill",))

PARTS: dict[str, dict[str, Way]] = {
    "base": {
        "base: large": Way((PUBLIC_ROWS,), "", LARGE, trained=False),
        "base: small": Way((AVERAGED,), SMALL, SMALL, trained=False),
        "base: mentors": Way((Part("mentors", plain(MENTOR)),), MENTOR, trained=False),
        "base: unequal": Way(alone(MIXED), UNEQUAL, trained=False),
    },
    "small": {
        "each alone: small": Way(alone(each(SMALL)), SMALL),
        "fedavg": Way((AVERAGED,), SMALL, SMALL),
        "centralised": Way((ONE_PLACE,), "", SMALL),
        "fedcollm without distillation": Way((LABELS_ALONE,), SMALL, SMALL),
        "fedcollm": Way((CO_TUNED,), SMALL, SMALL),
    },
    "mentors": {
        "each alone: mentors": Way(alone(each(MENTOR)), MENTOR),
        "fedkd": Way((TAUGHT,), MENTOR, SMALL),
    },
    "unequal": {
        "each alone: unequal": Way(alone(MIXED), UNEQUAL),
        "feddistill": Way((MEAN_LOGITS,), UNEQUAL, LARGE),
        "each alone: unequal, texts": Way(alone(MIXED, *TEXT), UNEQUAL),
        "fedmkt": fedmkt("{}"),
        "fedmkt, 8 logits, float16": fedmkt("{k: 8, dtype: float16}"),
    },
    "server": {
        "public reviews alone": Way((PUBLIC_ROWS,), "", LARGE),
        "fedcollm, large": Way((CO_TUNED,), "", LARGE, score="test-large.classification"),
    },
}
WAYS = {name: way for part in PARTS.values() for name, way in part.items()}

# By which a row's silos, or its server's model, are compared.
BASELINE = {
    **dict.fromkeys(("fedavg", "fedcollm", "fedcollm without distillation"), "each alone: small"),
    "fedkd": "each alone: mentors",
    "feddistill": "each alone: unequal",
    **{name: "each alone: unequal, texts" for name in WAYS if name.startswith("fedmkt")},
}
SERVER_BASELINE = {
    **dict.fromkeys(
        ("fedcollm", "fedcollm without distillation", "fedkd", "centralised"), "fedavg"
    ),
    **{
        name: "public reviews alone"
        for name, way in WAYS.items()
        if way.at_server == LARGE and name != "public reviews alone"
    },
}
JUDGES = {
    "fedavg": AVERAGED,
    "mentor alone": alone({SILOS[2]: MENTOR})[0],
    "GPT-2 alone": alone({SILOS[3]: GPT2})[0],
    "public reviews alone": PUBLIC_ROWS,
}
FAMILIES = {
    AT_SILOS: Family(3e-3, ("fedavg", "mentor alone", "GPT-2 alone"), personal=True),
    AT_SERVER: Family(1e-3, ("public reviews alone",)),
}
