"""FederatedScope-LLM: `python federatedscope/main.py --cfg config.yaml`."""

from typing import Any

from hanse.planning.conversion import rounds
from hanse.planning.conversion.draft import SWITCHED_OFF, Draft, shown
from hanse.planning.conversion.tool import NO_SETTING, Tool, algorithm, optimizer, used

HUB = {  # its data sets, by their names without @llm, and where the hub has them
    "alpaca": "tatsu-lab/alpaca",
    "alpaca_cleaned": "yahma/alpaca-cleaned",
    "dolly-15k": "databricks/databricks-dolly-15k",
    "gsm8k": "openai/gsm8k:main",
}
CATEGORIES = {"dolly-15k": "category"}  # the column by which its splitters divide a data set
SWITCHES = ("fedprox.use", "fedopt.use")  # precede federate.method
LOCAL = "`hanse baselines` trains each client alone, beside the federation"
SERVER = "set algorithm: {fedopt: {optimizer: …, learning_rate: …}} for the server's optimizer"


def _data(draft: Draft, key: str, value: Any) -> None:
    name = str(value).partition("@")[0]
    root = str(draft.source.get("data.root") or "data")
    path = HUB.get(name.lower(), f"{root.rstrip('/')}/{name}")
    draft.put("data.path", path, key, f"{key}: {value}")


def _splits(draft: Draft, key: str, value: Any) -> None:
    """Shares of training, validation and test rows."""
    for setting, share in zip(("data.validation", "data.test"), value[1:], strict=False):
        draft.put(setting, share, key, f"{key}: {shown(value)}")


def _column(draft: Draft) -> str | None:
    return CATEGORIES.get(str(draft.source.get("data.type")).partition("@")[0].lower())


def _splitter(draft: Draft, key: str, value: Any) -> None:
    name, column = str(value).lower(), _column(draft)
    if name == "iid":
        draft.put("data.partition", "iid", key)
    elif name == "lda":
        arguments = draft.source.get("data.splitter_args") or [{}]
        alpha = next((each["alpha"] for each in arguments if "alpha" in each), 0.5)
        draft.put("data.partition.dirichlet.alpha", alpha, "data.splitter_args")
        if column:
            draft.put("data.partition.dirichlet.partition_by", column, key, "its categories")
    elif name == "meta" and column:
        draft.put("data.partition.key.column", column, key, f"{key}: {value}")
    else:
        draft.leave(
            f"{key}: {value}", "set data.partition: {key: {column: …}} for clients by a column"
        )


def _adapter(draft: Draft, key: str, value: Any) -> None:
    """The first adapter's arguments, which are PEFT's, or AdapterHub's."""
    arguments = dict(value[0] if isinstance(value, list) else value)
    method = arguments.pop("adapter_method", "lora")
    if method != "lora":
        draft.leave(f"{key}: {method}", "LoRA is taken; `hanse parts` lists other adapters")
        draft.default("adapter.lora.r", 8, "LoRA in place of it")
        return
    for name, setting in arguments.items():
        if name in ("r", "lora_alpha", "lora_dropout", "target_modules"):
            draft.put(f"adapter.lora.{name}", setting, f"{key}: {name}")
        elif name != "adapter_package":
            draft.leave(f"{key}: {name}", NO_SETTING)


def _model(draft: Draft, key: str, value: Any) -> None:
    draft.put("model.model_name_or_path", str(value).partition("@")[0], key)


def _method(draft: Draft, key: str, value: Any) -> None:
    if value == "global":
        draft.put("data.pooled", True, key, f"{key}: {value}")
    elif value == "local":
        draft.leave(f"{key}: {value}", LOCAL)
    elif switch := next((use for use in SWITCHES if draft.source.get(use) is True), None):
        draft.leave(key, f"{switch} says the algorithm")
    else:
        algorithm(draft, key, value)


def _sampled(draft: Draft, key: str, value: Any) -> None:
    """The number of clients in a round; 0 or less means all."""
    clients = draft.source.get("federate.client_num")
    if isinstance(value, int) and isinstance(clients, int) and 0 < value <= clients:
        draft.put("fraction_train", round(value / clients, 6), key, f"{key}: {value}")
    else:
        draft.leave(key, "all clients take part")


def _local_steps(draft: Draft, key: str, value: Any) -> None:
    unit = draft.source.get("train.batch_or_epoch") or "batch"
    draft.put("train.num_train_epochs" if unit == "epoch" else "train.max_steps", value, key)


def _fedopt(draft: Draft, key: str, value: Any) -> None:
    if value is True:
        draft.put("algorithm", "fedopt", key, f"{key}: true")
    else:
        draft.leave(key, SWITCHED_OFF)


def _fedprox(draft: Draft, key: str, value: Any) -> None:
    if draft.source.get("fedprox.use") is True:
        draft.put("algorithm.fedprox.mu", value, key)
    else:
        draft.leave(key, "fedprox.use is off")


def _finish(draft: Draft) -> None:
    draft.default("algorithm", "fedavg", "FederatedScope's default")
    if "train.num_train_epochs" not in draft.settings:
        draft.default("train.max_steps", 1, "FederatedScope's default")
    rounds.one_adapter(draft, "FederatedScope", "llm.adapter.use")


TOOL = Tool(
    name="FederatedScope",
    marks=frozenset(
        {
            *("federate.client_num", "federate.total_round_num", "llm.tok_len", "data.splitter"),
            *("train.local_update_steps", "federate.mode", "federate.method", "model.type"),
        }
    ),
    settings={
        "data.root": used,
        "data.type": _data,
        "data.splits": _splits,
        "data.splitter": _splitter,
        "data.splitter_args": used,
        "llm.adapter.args": _adapter,
        "llm.tok_len": "model.max_length",
        "model.type": _model,
        "federate.method": _method,
        "federate.sample_client_num": _sampled,
        "train.local_update_steps": _local_steps,
        "dataloader.batch_size": "train.per_device_train_batch_size",
        "train.batch_or_epoch": used,
        "train.optimizer.lr": "train.learning_rate",
        "train.optimizer.weight_decay": "train.weight_decay",
        "train.optimizer.momentum": "train.momentum",
        "train.optimizer.type": optimizer,
        "grad.grad_clip": lambda draft, key, value: draft.put(
            "train.max_grad_norm", max(0.0, value), key
        ),
        "llm.grad_accum_step": "train.gradient_accumulation_steps",
        "grad.grad_accum_count": "train.gradient_accumulation_steps",
        "fedopt.use": _fedopt,
        "fedprox.use": used,
        "fedprox.mu": _fedprox,
        "eval.freq": "evaluation.validate_every",
        "outdir": "output_dir",
        "expname": "name",
    },
    reasons={
        "early_stop.patience": "hanse runs all rounds",
        "device": "model.device chooses cpu or cuda",
        "federate.mode": "`hanse run` simulates, and `hanse server` has silos on other machines",
        "llm.chat.max_len": "`hanse chat` reads as much as the model does",
        "llm.adapter.use": "the section adapter says it",
        "fedopt.optimizer.type": SERVER,
        "fedopt.optimizer.lr": SERVER,
        "criterion.type": "the objective says it",
        "trainer.type": "the objective says it",
        "eval.metrics": "the tasks say it",
        "eval.best_res_update_round_wise_key": "hanse keeps every round's scores",
    },
    defaults={
        "rounds": 50,
        "model.max_length": 128,
        "train.optim": "sgd",
        "train.max_grad_norm": 0.0,
        "train.learning_rate": 0.1,
        "train.per_device_train_batch_size": 64,
    },
    sections=frozenset({"", "federate", "data", "dataloader", "model", "llm", "train"}),
    finish=_finish,
)
