"""Names that other tools give our settings.

A name is understood at the top of a file, in the section of its setting, and in a section that only
the other tool has (`federate: {client_num: 4}`). A name with a dot is understood in that section
only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hanse.experiment.schema import Experiment
from hanse.experiment.validation import keys


@dataclass(frozen=True)
class Alias:
    """The setting that a name means, and our values for those of its values that differ."""

    setting: str
    values: Mapping[Any, Any] = field(default_factory=dict)


ALIASES = {
    # The federation.
    "num_rounds": Alias("rounds"),  # Flower's ServerConfig, OpenFedLLM
    "num_server_rounds": Alias("rounds"),  # Flower's app templates
    "server_rounds": Alias("rounds"),  # the same, in short
    "comm_round": Alias("rounds"),  # FedML
    "total_round_num": Alias("rounds"),  # FederatedScope: federate
    "num_supernodes": Alias("num_clients"),  # Flower: options of a simulation
    "num_partitions": Alias("num_clients"),  # flwr-datasets
    "client_num_in_total": Alias("num_clients"),  # FedML
    "client_num": Alias("num_clients"),  # FederatedScope: federate
    "fraction_fit": Alias("fraction_train"),  # Flower's strategies before its message API
    "fraction_train": Alias("fraction_train"),  # Flower: strategy
    "sample_client_rate": Alias("fraction_train"),  # FederatedScope: federate
    "fed_alg": Alias("algorithm"),  # OpenFedLLM
    "federated_optimizer": Alias("algorithm"),  # FedML
    "proximal_mu": Alias("algorithm.fedprox.mu"),  # Flower's FedProx
    "prox_mu": Alias("algorithm.fedprox.mu"),  # OpenFedLLM
    "fedprox_mu": Alias("algorithm.fedprox.mu"),  # FedML
    "algorithm.fedprox.proximal_mu": Alias("algorithm.fedprox.mu"),  # Flower's FedProx
    "algorithm.fedopt.eta": Alias("algorithm.fedopt.learning_rate"),  # Flower's FedAdam
    "algorithm.fedopt.server_learning_rate": Alias("algorithm.fedopt.learning_rate"),  # its FedAvgM
    "algorithm.fedopt.server_momentum": Alias("algorithm.fedopt.beta_1"),  # Flower's FedAvgM
    "fedopt_eta": Alias("algorithm.fedopt.learning_rate"),  # OpenFedLLM
    "fedopt_beta1": Alias("algorithm.fedopt.beta_1"),  # OpenFedLLM
    "fedopt_beta2": Alias("algorithm.fedopt.beta_2"),  # OpenFedLLM
    "fedopt_tau": Alias("algorithm.fedopt.tau"),  # OpenFedLLM
    "partition_alpha": Alias("data.partition.dirichlet.alpha"),  # FedML
    "dirichlet_alpha": Alias("data.partition.dirichlet.alpha"),  # the same, by its whole name
    "split_strategy": Alias("data.partition"),  # OpenFedLLM
    # hanse's own earlier names, which older run folders have.
    "cohort": Alias("clients_per_pass"),
    "data.where": Alias("data.filter"),
    "evaluation.test": Alias("evaluation.test", {"last": "final"}),
    # The run.
    "random_seed": Alias("seed"),  # FedML
    "outdir": Alias("output_dir"),  # FederatedScope
    "output": Alias("output_dir"),  # the same, in short
    # The model.
    "base_model": Alias("model.model_name_or_path"),  # axolotl, alpaca-lora
    "model_name": Alias("model.model_name_or_path"),  # Unsloth, Flower's Hugging Face quickstart
    "model.name": Alias("model.model_name_or_path"),  # FlowerTune
    "model_id": Alias("model.model_name_or_path"),  # Hugging Face's examples
    "pretrained_model_name_or_path": Alias("model.model_name_or_path"),  # transformers
    "cutoff_len": Alias("model.max_length"),  # LLaMA-Factory, alpaca-lora
    "sequence_len": Alias("model.max_length"),  # axolotl
    "seq_length": Alias("model.max_length"),  # OpenFedLLM
    "train.seq_length": Alias("model.max_length"),  # FlowerTune
    "max_seq_length": Alias("model.max_length"),  # TRL's former name, Unsloth, FedML
    "max_seq_len": Alias("model.max_length"),  # torchtune
    "model_max_length": Alias("model.max_length"),  # transformers' tokenizers
    "tok_len": Alias("model.max_length"),  # FederatedScope: llm
    "load_in_8bit": Alias("model.quantization", {True: "int8", False: "none"}),  # transformers, TRL
    "load_in_4bit": Alias("model.quantization", {True: "nf4", False: "none"}),  # the same, axolotl
    "quantization_bit": Alias("model.quantization"),  # LLaMA-Factory
    "train.gradient_checkpointing": Alias("model.gradient_checkpointing"),  # its trainer's
    "enable_activation_checkpointing": Alias("model.gradient_checkpointing"),  # torchtune
    # The adapter.
    "lora_r": Alias("adapter.lora.r"),  # TRL, axolotl, alpaca-lora
    "lora_rank": Alias("adapter.lora.r"),  # LLaMA-Factory, torchtune
    "peft_lora_r": Alias("adapter.lora.r"),  # FlowerTune, OpenFedLLM
    "adapter.lora.rank": Alias("adapter.lora.r"),  # mlx-lm: lora_parameters
    "adapter.lora.alpha": Alias("adapter.lora.lora_alpha"),  # the same, without the section's name
    "adapter.lora.dropout": Alias("adapter.lora.lora_dropout"),  # mlx-lm: lora_parameters
    "peft_lora_alpha": Alias("adapter.lora.lora_alpha"),  # FlowerTune, OpenFedLLM
    "lora_target_modules": Alias("adapter.lora.target_modules"),  # TRL, axolotl, alpaca-lora
    "lora_target": Alias("adapter.lora.target_modules", {"all": "all-linear"}),  # LLaMA-Factory
    "lora_target_linear": Alias(  # axolotl
        "adapter.lora.target_modules", {True: "all-linear", False: None}
    ),
    # The data.
    "dataset": Alias("data.path"),  # LLaMA-Factory, FedML
    "mask_history": Alias("data.mask_history"),  # LLaMA-Factory
    "dataset_name": Alias("data.path"),  # TRL, OpenFedLLM
    "dataset.name": Alias("data.path"),  # FlowerTune
    "data_path": Alias("data.path"),  # alpaca-lora
    "dataset_path": Alias("data.path"),  # FedML's UnitedLLM
    "train_file": Alias("data.path"),  # Hugging Face's example scripts
    "val_set_size": Alias("data.validation"),  # axolotl, alpaca-lora
    "val_size": Alias("data.validation"),  # LLaMA-Factory
    "test_dataset_size": Alias("data.test"),  # FedML's UnitedLLM
    # The training at a client, in each round.
    "lr": Alias("train.learning_rate"),  # Flower's app templates, FederatedScope, torchtune
    "batch_size": Alias("train.per_device_train_batch_size"),  # Flower, FedML, OpenFedLLM
    "micro_batch_size": Alias("train.per_device_train_batch_size"),  # axolotl, alpaca-lora
    "per_device_batch_size": Alias("train.per_device_train_batch_size"),  # the same, in short
    "epochs": Alias("train.num_train_epochs"),  # FedML, torchtune
    "num_epochs": Alias("train.num_train_epochs"),  # axolotl, alpaca-lora
    "local_epochs": Alias("train.num_train_epochs"),  # Flower's app templates
    "local_num_train_epochs": Alias("train.num_train_epochs"),  # FedML's UnitedLLM
    "local_steps": Alias("train.max_steps"),  # the literature's word
    "local_update_steps": Alias("train.max_steps"),  # FederatedScope: train
    "local_max_steps": Alias("train.max_steps"),  # FedML's UnitedLLM
    "client_optimizer": Alias("train.optim"),  # FedML
    "optimizer": Alias("train.optim"),  # axolotl
    "sample_packing": Alias("train.packing"),  # axolotl
    "neat_packing": Alias("train.packing"),  # LLaMA-Factory
    "lr_scheduler": Alias("train.lr_scheduler_type"),  # axolotl
    "clip_grad_norm": Alias("train.max_grad_norm"),  # FedML
}
# Hugging Face's own names are ours; its tools write them without a section. A name that means
# another setting there keeps that meaning: device is the simulated one.
ALIASES |= {
    name: Alias(f"{section}.{name}")
    for section in ("model", "adapter.lora", "train")
    for name in keys(Experiment, tuple(section.split(".")))
    if name not in keys(Experiment, ())
}
