"""Training without an adapter: what could not be replayed is refused, before a model is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hanse.errors import UserError
from hanse.experiment.assembly import in_place
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.schema import Experiment
from hanse.learners.injection import adapter_files
from hanse.learners.models.settings import BaseModelSettings

TRAIN: dict[str, Any] = {"optim": "sgd", "max_steps": 200}
FITTING: dict[str, Any] = {"algorithm": "fedkseed", "adapter": "none", "train": TRAIN}


def experiment(**changes: Any) -> Experiment:
    return Experiment.model_validate({**FITTING, **changes})


def test_what_fits_computes_in_float32_without_copies_of_weights() -> None:
    in_place.refuse_unfit(experiment())
    model = in_place.prepared(experiment()).model
    assert (model.bf16, model.products, model.activation_cache) == (False, "torch", False)
    assert in_place.prepared(experiment(model={"products": "plain"})).model.products == "plain"
    assert in_place.remarks(experiment()) == [in_place.REMARK]
    other = experiment(adapter="lora")
    assert in_place.remarks(other) == []
    assert in_place.prepared(other) is other
    own = {"silo-1": {"train": {"per_device_train_batch_size": 1}, "data": {"skip_invalid": True}}}
    in_place.refuse_unfit(experiment(clients=own))


def test_a_model_beside_the_trained_one_stays_as_it_is(tiny_llama: Path) -> None:
    model, resources = BaseModelSettings(str(tiny_llama), bf16=False), Resources()
    backbone = resources.backbone(model, "tokens", {})
    choice = experiment().adapter
    with pytest.raises(UserError, match=r"set models\.teacher\.adapter=none, which leaves"):
        resources.attach(model, backbone, choice, 0, "teacher")
    assert backbone.start_weights is None


def test_a_change_of_another_run_is_not_continued(tmp_path: Path) -> None:
    change = {"seed": torch.tensor([7], dtype=torch.int32), "amounts": torch.ones(8)}
    adapter_files.save_change(change, tmp_path, None, "CAUSAL_LM")
    with pytest.raises(UserError, match=r"adapter\.from is .*; write the changed model with"):
        in_place.refuse_unfit(experiment(adapter={"from": str(tmp_path)}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"adapter": "lora"}, "trains no adapter, but adapter is lora; set adapter=none"),
        ({"adapter": "ia3"}, "but adapter is ia3; set adapter=none"),
        ({"algorithm": "fedavg"}, "FedAvg trains an adapter, but adapter is none; choose one"),
        ({"models": {"teacher": {}}}, "models beside it could share its weights; leave models out"),
        ({"model": {"bf16": True}}, "vanish in 16 bits; leave model.bf16 out"),
        ({"model": {"quantization": "nf4"}}, "those of nf4 cannot; set model.quantization=none"),
        ({"model": {"products": "packed"}}, "double the memory; leave model.products out"),
        ({"train": {"optim": "sgd"}}, "set train.max_steps, such as 200"),
        ({"train": {**TRAIN, "weight_decay": 0.1}}, "set train.weight_decay=0"),
        ({"train": {**TRAIN, "momentum": 0.9}}, "set train.momentum=0"),
        ({"train": {**TRAIN, "lr_scheduler_type": "linear"}}, "lr_scheduler_type=constant"),
        ({"train": {**TRAIN, "warmup_ratio": 0.1}}, "leave warmup out"),
        ({"train": {**TRAIN, "warmup_steps": 3}}, "leave warmup out"),
        (
            {"clients": {"silo-1": {"train": {"learning_rate": 1e-4}}}},
            "leave clients.silo-1.train out, but for gradient_acc",
        ),
        (
            {"clients": {"silo-2": {"model": {"model_name_or_path": "minilm-l6"}}}},
            "clients.silo-2 has settings of model; leave these out",
        ),
        (  # that of the experiment, but it would win over what changes in place
            {"clients": {"silo-2": {"adapter": "none", "model": {"bf16": "auto"}}}},
            "clients.silo-2 has settings of adapter and model; leave these out",
        ),
        ({"train": {**TRAIN, "max_steps": 1_000_001}}, "1,000,000 steps in a round; lower train.m"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    changes: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*arguments: Any) -> None:
        raise AssertionError("rows or a model were read")

    monkeypatch.setattr("hanse.experiment.assembly.resources.load", loaded)
    monkeypatch.setattr("hanse.experiment.assembly.resources.divide", loaded)
    with pytest.raises(UserError, match=r"^[A-Z]") as refused:
        simulate(experiment(**changes))
    assert sentence in str(refused.value)
    assert str(refused.value).endswith(".")
    assert str(refused.value).count(". ") == 0
