"""Python code to copy that loads a run's adapter without hanse."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hanse.learners.injection.adapter import IN_PLACE
from hanse.learners.injection.adapter_layout import CONFIG, folders
from hanse.tensors import json_text

AUTO = {  # for all others, a language model's
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
}
BOTTLENECK = "import hanse.learners.injection.tuners.bottleneck  # PEFT has none of its own"
IN_PLACE_USAGE = """# A change of all weights, as seeds. First write the changed model:
#   hanse export --merge MODEL {place}
from transformers import {auto}

model = {auto}.from_pretrained("MODEL")"""
SEVERAL = "# Into the same base, in this order, so that all work; PEFT warns of several adapters."


def usage(adapter: Path, place: str, labels: Mapping[str, object]) -> str:
    """Python that loads an adapter with PEFT.

    adapter: its folder. place: the folder as Python says it. labels: a classifier's, and their
    words, in the order of its outputs.
    """
    try:
        _, *around = folders(adapter)
        config, *others = [_config(folder) for folder in (adapter, *around)]
    except (OSError, ValueError):  # the report of a damaged folder shows the usual code
        config, others, around = {}, [], []
    task = config.get("task_type")
    auto = AUTO.get(str(task), "AutoModelForCausalLM")
    if config.get("peft_type") == IN_PLACE:
        return IN_PLACE_USAGE.format(auto=auto, place=place[1:-1])
    words = {at: str(word) for at, word in enumerate(labels.values())}
    numbers = {word: at for at, word in words.items()}
    named = f", id2label={words}, label2id={numbers}, ignore_mismatched_sizes=True"
    head = named if task in ("SEQ_CLS", "TOKEN_CLS") else ""
    own = "BOTTLENECK" in [one.get("peft_type") for one in (config, *others)]
    places = [place, *(f"{place[:-1]}/{folder.name}{place[-1]}" for folder in around)]
    first, *more = (f"model = PeftModel.from_pretrained(base, {there})" for there in places)
    return "\n".join(
        [
            *([BOTTLENECK] if own else []),
            "from peft import PeftModel",
            f"from transformers import {auto}",
            "",
            f"base = {auto}.from_pretrained(BASE{head})",
            first,
            *([SEVERAL, *more] if more else []),
        ]
    )


def _config(folder: Path) -> dict[str, Any]:
    """One kind's configuration; raises OSError or ValueError if there is none."""
    return json_text.read_object(folder / CONFIG)
