"""The model card of a run's adapter."""

from hanse import __version__
from hanse.experiment import Experiment
from hanse.journal import Row


def model_card(experiment: Experiment, rounds: list[Row]) -> str:
    """Markdown that tells what the adapter is, how it was made, how good it is, how to load it."""
    base = experiment.model.model_name_or_path
    train = experiment.train
    length = (
        f"{train.max_steps} steps" if train.max_steps else f"{train.num_train_epochs or 1} epochs"
    )
    algorithm = ", ".join(experiment.resolved()["algorithm"])
    return f"""---
library_name: peft
base_model: {base}
tags: [federated-learning, hanse]
---

# {experiment.name}

An adapter for `{base}`, fine-tuned by {
        experiment.num_clients if not experiment.clients else len(experiment.client_names)
    } clients whose data stayed where it was
(hanse {__version__}): {experiment.rounds} rounds of {length} with `{algorithm}`,
learning rate {train.learning_rate}, seed {experiment.seed}.

Data: `{experiment.data.path}`. Rows held out for the scores below were taken before the data was
divided among the clients.

{_scores(rounds)}
## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained(BASE)  # the folder or id of {base}
model = PeftModel.from_pretrained(base, ADAPTER)  # this folder
```

Every choice of the run is in `experiment.yaml` beside this folder.
"""


def _scores(rounds: list[Row]) -> str:
    """The test scores before and after, as a table; nothing if there are none."""
    first = rounds[0].get("test") if rounds else None
    last = rounds[-1].get("test") if rounds else None
    if not first or not last:
        return ""
    lines = ["| test | before | after |", "|---|---|---|"]
    lines += [
        f"| {name} | {first[name]:.4f} | {last[name]:.4f} |" for name in last if name in first
    ]
    return "\n".join(lines) + "\n"
