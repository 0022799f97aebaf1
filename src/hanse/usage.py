"""How a run's adapter is loaded without hanse, as Python to copy."""

import json
from collections.abc import Mapping
from pathlib import Path

AUTO = {  # for all others, a language model's
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
}


def usage(adapter: Path, place: str, labels: Mapping[str, object]) -> str:
    """Python that loads an adapter with PEFT.

    adapter: its folder. place: the folder as Python says it. labels: a classifier's, and their
    words, in the order of its outputs.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        task, kind = config.get("task_type"), config.get("peft_type")
    except (OSError, ValueError, AttributeError):  # a damaged folder's report still says what usual
        task, kind = None, None
    auto = AUTO.get(str(task), "AutoModelForCausalLM")
    words = {at: str(word) for at, word in enumerate(labels.values())}
    places = {word: at for at, word in words.items()}
    named = f", id2label={words}, label2id={places}"
    head = named if task in ("SEQ_CLS", "TOKEN_CLS") else ""
    extra = ["import hanse.learners.tuners.bottleneck  # PEFT has none of its own"]
    return "\n".join(
        [
            *(extra if kind == "BOTTLENECK" else []),
            "from peft import PeftModel",
            f"from transformers import {auto}",
            "",
            f"base = {auto}.from_pretrained(BASE{head})",
            f"model = PeftModel.from_pretrained(base, {place})",
        ]
    )
