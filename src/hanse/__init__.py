"""Federated fine-tuning of large language models."""

import os

__version__ = "0.1.0"

# Nothing phones home: set before any library that would reads it.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
