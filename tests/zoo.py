"""Algorithms that train an adapter, each with settings by which it differs from FedAvg."""

SGD = ("train.optim=sgd", "train.learning_rate=0.5")
RANKS = "clients={silo-1: {adapter: {lora: {r: 2}}}, silo-3: {adapter: {lora: {r: 8}}}}"
PARTS = (
    "clients={silo-1: {adapter: {lora: {target_modules: [q_proj]}}}, "
    "silo-3: {adapter: {lora: {rank_pattern: {v_proj: 2}}}}}"
)
ZOO = {
    "scaffold": SGD,
    "fednova": (*SGD, "train.momentum=0.5", "train.optimizer_state=reset"),
    "feddyn": SGD,
    "ffa_lora": (),
    "rolora": ("train.optimizer_state=reset",),
    "fedsa_lora": (),
    "fedper": ("algorithm.fedper.share=[layers.0]",),
    "flexlora": (RANKS, "train.optimizer_state=reset"),
    "fedpipe": ("adapter.lora.r=8", PARTS, "train.optimizer_state=reset"),
    "flora": (RANKS, "train.optimizer_state=reset"),
    "fedex_lora": ("train.optimizer_state=reset",),
    "hetlora": ("adapter.lora.r=8", RANKS),
    "lora_fair": (),
    "fed_sb": ("adapter=lora_xs",),
    "diloco": ("algorithm.diloco.fragments=2", "train.optimizer_state=keep"),
    "ditto": ("train.optimizer_state=reset",),
}


def words(algorithm: str, *more: str) -> list[str]:
    """The settings of a run with an algorithm; its own replace those that are given."""
    named = () if any("algorithm" in word for word in ZOO[algorithm]) else (algorithm,)
    own = {word.split("=")[0] for word in ZOO[algorithm]}
    more = tuple(word for word in more if word.split("=")[0] not in own)
    return [*(f"algorithm={name}" for name in named), *more, *ZOO[algorithm]]
