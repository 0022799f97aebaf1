"""The benchmark of planned memory: a silo's settings as those of a whole experiment."""

from pathlib import Path

import planned_memory

from hanse.experiment.loading import load


def test_a_silos_settings_become_those_of_the_whole_experiment(experiment_file: Path) -> None:
    lora = {"target_modules": ["a.0.q", "a.1.v"], "rank_pattern": {"a.1.v": 2}}
    settings = {
        "train": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8},
        "model": {"quantization": "int8", "bf16": True},
        "adapter": {"lora": lora},
    }
    made = load(experiment_file, planned_memory._words(settings))
    usual = load(experiment_file)
    assert made.train.batch == 16 and made.model.quantization == "int8" and made.model.bf16 is True
    adapter, plain = made.adapter.fresh, usual.adapter.fresh
    assert list(adapter.target_modules) == lora["target_modules"] and adapter.rank_pattern == {
        "a.1.v": 2
    }
    assert adapter.r == plain.r and planned_memory._words({}) == []
