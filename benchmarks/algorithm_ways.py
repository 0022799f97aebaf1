"""The ways of benchmarks/comparison.py: every algorithm with its settings, its family, its part."""

from dataclasses import dataclass

from protocol import pooled
from rates import Family

BASE, BASELINE = "base", "fedavg"
SILOS = 4  # of the experiment
PLAIN = ("train.optim=sgd",)
# The experiment's layers, as other adapters than LoRA are told them.
LAYERS = r".*layers\.2[6-9]\."
CORES = f"adapter={{lora_xs: {{r: 32, target_modules: '{LAYERS}.*_proj'}}}}"
PAIR = (
    f"adapter={{pfeiffer: {{target_modules: '{LAYERS}mlp.down_proj'}}, lora: {{r: 8, "
    f"lora_alpha: 16, target_modules: '{LAYERS}.*(q|k|v|o|gate|up)_proj'}}}}"
)
RANKS = [f"clients.silo-{1 + place}.adapter.lora.r={r}" for place, r in enumerate((4, 8, 16, 16))]

FAMILIES = {
    "AdamW": Family(1e-3, (BASELINE,)),
    "SGD": Family(1e-1, ("fedavg, plain SGD",)),
    "cores": Family(1e-3, ("fed_sb",)),
    "personal": Family(1e-3, ("fedsa_lora", "fedper", "pftt", "ditto"), personal=True),
}


@dataclass(frozen=True)
class Way:
    """One line of the comparison.

    family: with whom it shares its learning rate. one_place: whether nobody sends anything.
    """

    family: str
    settings: tuple[str, ...]
    one_place: bool = False


PARTS: dict[str, dict[str, Way]] = {
    "plain": {
        BASELINE: Way("AdamW", ("algorithm=fedavg",)),
        "centralised": Way("AdamW", ("algorithm=fedavg", *pooled(SILOS)), one_place=True),
        "fedprox": Way("AdamW", ("algorithm.fedprox.mu=0.1",)),
        "fedopt": Way("AdamW", ("algorithm.fedopt.optimizer=adam",)),
        "ffa_lora": Way("AdamW", ("algorithm=ffa_lora",)),
        "rolora": Way("AdamW", ("algorithm=rolora",)),
    },
    "factors": {
        "flora": Way("AdamW", ("algorithm=flora",)),
        "fedex_lora": Way("AdamW", ("algorithm=fedex_lora",)),
        "flexlora": Way("AdamW", ("algorithm=flexlora",)),
        "flexlora, ranks 4 to 16": Way(
            "AdamW", ("algorithm=flexlora", "adapter.lora.r=16", *RANKS)
        ),
        "hetlora": Way("AdamW", ("algorithm=hetlora",)),
        "lora_fair": Way("AdamW", ("algorithm=lora_fair",)),
    },
    "sgd": {
        "fedavg, plain SGD": Way("SGD", ("algorithm=fedavg", *PLAIN)),
        "centralised, plain SGD": Way("SGD", ("algorithm=fedavg", *PLAIN, *pooled(SILOS)), True),
        "scaffold": Way("SGD", ("algorithm=scaffold", *PLAIN)),
        "fednova": Way("SGD", ("algorithm=fednova", *PLAIN)),
        "feddyn": Way("SGD", ("algorithm=feddyn", *PLAIN)),
    },
    "cores": {"fed_sb": Way("cores", ("algorithm=fed_sb", CORES))},
    "personal": {
        "fedsa_lora": Way("personal", ("algorithm=fedsa_lora",)),
        "fedper": Way("personal", (r"algorithm.fedper.share=['layers\.2[67]\.']",)),
        "pftt": Way("personal", ("algorithm=pftt", PAIR)),
        "ditto": Way("personal", ("algorithm=ditto",)),
    },
}
WAYS = {name: way for part in PARTS.values() for name, way in part.items()}
