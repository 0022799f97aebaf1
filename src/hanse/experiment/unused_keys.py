"""Keys of other tools that have no counterpart here, with the reason.

A file that has them is refused with one sentence that names them all, and `hanse convert` leaves
them out with their reasons.
"""

LOGS = "hanse logs by itself, and report_to names trackers"
SAVES = "hanse keeps a checkpoint of every round by itself"
SCORES = "evaluation.validate_every says in which rounds the model is scored"
LOADING = "hanse reads, tokenizes and batches rows by itself"
DEVICES = "a client trains on one device, and model.device chooses it"
PRECISION = "hanse computes in bfloat16 or float32, and model.bf16 chooses"
ATTENTION = "hanse measures which attention is fastest here"
ARCHITECTURE = "the model's own folder says it"
TEMPLATE = "hanse renders conversations by the tokenizer's own chat template"
UPLOAD = "hanse uploads nothing to a hub"
CODE = "code that comes with a model is never run"
ANSWERS = "hanse learns the answers alone, of every turn or the last (data.mask_history)"
ROWS = "hanse trains on all rows of the file"
OPTIMIZER = "hanse's AdamW has the usual β and ε"

_BY_REASON = {
    LOGS: (
        *("logging_steps", "logging_strategy", "logging_dir", "logging_first_step", "log_level"),
        *("plot_loss", "disable_tqdm", "run_name", "include_num_input_tokens_seen"),
        *("include_tokens_per_second", "log_with", "verbose", "debug", "use_swanlab"),
        *("swanlab_project", "swanlab_run_name", "wandb_project", "wandb_entity", "wandb_watch"),
        *("wandb_name", "wandb_run_id", "wandb_log_model", "wandb_mode", "mlflow_experiment_name"),
        *("mlflow_tracking_uri", "tracker_name", "project", "trackio_space_id", "log_entropy"),
        *("include_tkps", "profiler", "logging_nan_inf_filter"),
    ),
    SAVES: (
        *("save_steps", "save_strategy", "save_total_limit", "save_only_model", "save_safetensors"),
        *("saves_per_epoch", "save_first_step", "overwrite_output_dir", "resume_from_checkpoint"),
        *("auto_resume_from_checkpoints", "save_every_round", "load_best_model_at_end", "save_to"),
        *("save_freq", "metric_for_best_model", "greater_is_better", "early_stopping_patience"),
        *("restore_from", "save_on_each_node"),
    ),
    SCORES: (
        *(
            "do_train",
            "do_eval",
            "do_predict",
            "eval_strategy",
            "evaluation_strategy",
            "eval_steps",
        ),
        *(
            "evals_per_epoch",
            "eval_on_start",
            "eval_sample_packing",
            "eval_table_size",
            "eval_packing",
        ),
        *("eval_max_new_tokens", "eval_causal_lm_metrics", "per_device_eval_batch_size"),
        *("eval_batch_size", "fraction_evaluate", "predict_with_generate", "do_bench_eval"),
        *("eval_accumulation_steps", "compute_accuracy", "loss_watchdog_threshold"),
        *("loss_watchdog_patience", "do_causal_lm_eval"),
    ),
    LOADING: (
        *("preprocessing_num_workers", "dataloader_num_workers", "dataloader_pin_memory"),
        *("dataloader_prefetch_factor", "dataloader_drop_last", "dataset_num_proc"),
        *("dataset_processes", "dataset_prepared_path", "overwrite_cache", "group_by_length"),
        *("pad_to_sequence_len", "remove_unused_columns", "tokenized_path", "streaming"),
        *("buffer_size", "dataset_keep_in_memory", "data_shared_file_system", "cache_dir"),
        *("shuffle_merged_datasets", "skip_prepare_dataset", "pad_to_multiple_of", "num_workers"),
        *(
            "dataloader_persistent_workers",
            "padding_free",
            "dataset_kwargs",
            "train_sampling_strategy",
        ),
    ),
    DEVICES: (
        *("ddp_timeout", "ddp_find_unused_parameters", "ddp_backend", "ddp_bucket_cap_mb"),
        *("deepspeed", "fsdp", "fsdp_config", "fsdp_version", "local_rank", "use_cpu", "no_cuda"),
        *("tensor_parallel_size", "context_parallel_size", "ray_num_workers", "ray_run_name"),
        *("use_ray", "resources_per_worker", "device_map", "low_cpu_mem_usage", "use_gpu"),
        *("num_cpus", "num_gpus", "accelerator_config", "world_size", "dp_shard_size"),
        *("share_local_model", "online_aggr", "torch_compile", "torch_compile_backend"),
    ),
    PRECISION: (
        *("fp16", "tf32", "pure_bf16", "torch_dtype", "dtype", "float16", "bfloat16", "fp32"),
        *("bnb_4bit_quant_type", "bnb_4bit_compute_dtype", "bnb_4bit_use_double_quant"),
        *(
            "use_bnb_nested_quant",
            "double_quantization",
            "quantization_method",
            "quantization_type",
        ),
        *(
            "bf16_full_eval",
            "is_enable_half",
            "upcast_layernorm",
            "half_precision_backend",
            "infer_dtype",
        ),
    ),
    ATTENTION: (
        *("flash_attn", "flash_attention", "xformers_attention", "sdp_attention", "s2_attention"),
        *("attn_implementation", "use_flash_attention_2", "eager_attention", "use_unsloth"),
        *("use_liger_kernel", "enable_liger_kernel", "use_liger", "liger_rope", "liger_rms_norm"),
        *("liger_glu_activation", "liger_layer_norm", "liger_fused_linear_cross_entropy"),
        *(
            "lora_mlp_kernel",
            "lora_qkv_kernel",
            "lora_o_kernel",
            "plugins",
            "use_cache",
            "shift_attn",
        ),
        *("gradient_checkpointing_kwargs", "use_reentrant", "disable_gradient_checkpointing"),
        *("unsloth_cross_entropy_loss", "liger_rms_norm_gated", "use_unsloth_gc"),
    ),
    ARCHITECTURE: (
        *("model_type", "tokenizer_type", "is_llama_derived_model", "is_mistral_derived_model"),
        *("base_model_config", "tokenizer_config", "tokenizer_name", "tokenizer_name_or_path"),
        *("tokenizer_use_fast", "use_fast_tokenizer", "lora_fan_in_fan_out", "special_tokens"),
        *("resize_vocab", "model_revision", "revision_of_model", "rope_scaling", "pad_token"),
        *("eos_token", "split_special_tokens", "strict", "padding_side", "cls_model_config"),
    ),
    TEMPLATE: (
        *(
            "template",
            "chat_template",
            "chat_template_path",
            "default_system",
            "conversation_template",
        ),
        *("chat_template_jinja", "enable_thinking", "tool_format", "clone_chat_template"),
    ),
    UPLOAD: (
        *("push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_token"),
        *("push_dataset_to_hub", "hub_revision", "hf_use_auth_token", "hf_hub_token"),
        *("hub_model_revision", "ms_hub_token", "om_hub_token", "push_to_hub_revision"),
    ),
    CODE: ("trust_remote_code",),
    ANSWERS: (
        *("train_on_prompt", "train_on_inputs", "completion_only_loss"),
        *("assistant_only_loss", "train_on_eos", "roles_to_train", "mask_prompt"),
    ),
    ROWS: ("max_samples", "max_train_samples", "max_eval_samples", "shuffle_merged"),
    OPTIMIZER: ("adam_beta1", "adam_beta2", "adam_epsilon", "adam_epsilon2", "optim_args"),
}
# Keys that mean nothing here if they have this value.
USUAL = {"stage": "sft", "finetuning_type": "lora", "use_peft": True}
METHOD = "the settings objective and adapter say it"
UNUSED = {key: reason for reason, keys in _BY_REASON.items() for key in keys}


def unused(key: object, value: object = None) -> str | None:
    """The reason why another tool's key means nothing here; None if the key is not known.

    A template with places for columns is none of another tool's names, but our data.template.
    """
    name = str(key).replace("-", "_").rpartition(".")[2]
    if name == "template" and "{" in str(value):
        return None
    if name in USUAL and USUAL[name] == value:
        return METHOD
    return UNUSED.get(name)
