"""The share of a training step that each kind of work takes: hanse beside a plain loop.

SmolLM2-135M, a GPT-2 of the small size with random weights, and the encoder minilm-l6 with a
classifier's head, each in float32 and in bfloat16, with LoRA of rank 8 on every linear layer. Both
loops train the same adapter on the same batches of 4 × 40 random tokens:

ours    hanse's own training of one client
plain   Hugging Face's model and PEFT's adapter in a loop, with a padding mask and logits at every
        position, as such loops are written; in bfloat16 under torch's autocast

Shares are those of the fastest of some profiled trainings (kinds_of_work.py says how). "Python and
dispatch" is what no operator takes: Python, autograd's and torch's bookkeeping, views and
allocations. A profiler adds time there, for every event that it records. That time is measured on a
model so small that a step is hardly anything else, and taken out again. The seconds of a step are
measured without the profiler, in turns, and the median counts. Floating-point operations are those
that hanse's step needs, for both loops. Writes benchmarks/results/profile_step.json.
"""

import argparse
import copy
import random
import statistics
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from kinds_of_work import KINDS, Work, by_work
from measured import clock, keep
from peft import get_peft_model
from shapes import gpt2_small, toy
from tokenizers import Tokenizer, models
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from hanse.data.example import IGNORED, Example
from hanse.learners import flops
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.load import load
from hanse.learners.models import pretrained
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.classify import Classify
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext

DISPATCH = "Python and dispatch"
RANK, BATCH, TOKENS = 8, 4, 40
LABELS = 0, 1  # their words, and a classifier's outputs
WORDS = 256  # tokens are drawn from these
LARGEST = 12  # operators in the result, of each loop
GPT2, ENCODER = "gpt2-small", "minilm-l6"
MODELS = "smollm2-135m", GPT2, ENCODER


@dataclass(frozen=True)
class Repeats:
    """Steps of a training, and trainings that are timed and profiled after the first."""

    steps: int = 3
    timed: int = 5
    profiled: int = 2


@dataclass(frozen=True)
class Plain:
    """A model of Hugging Face with an adapter of PEFT, and a loop that trains it."""

    model: Any
    examples: Sequence[Example]
    bf16: bool
    steps: int

    def fit(self) -> None:
        """Train as many steps as hanse, on the same rows."""
        live = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(live, 1e-3, weight_decay=0.0)
        self.model.train()
        for step in range(self.steps):
            batch = self.examples[step * BATCH : (step + 1) * BATCH]
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                loss = self.loss(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(live, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    def loss(self, batch: Sequence[Example]) -> torch.Tensor:
        """The loss over the two labels: a classifier's, or two words behind the text."""
        ids = torch.tensor([example.ids for example in batch])
        logits = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        if logits.dim() == 3:
            logits = logits[:, -1, list(LABELS)]
        return cross_entropy(logits.float(), torch.tensor([example.choice for example in batch]))


def rows(number: int) -> list[Example]:
    """Random texts of one length with one of two labels, the same each time."""
    draw, labels = random.Random(0), tuple((label,) for label in LABELS)
    return [
        Example(
            tuple(draw.randrange(WORDS) for _ in range(TOKENS)),
            *((IGNORED,) * TOKENS, labels, draw.randrange(2)),
        )
        for _ in range(number)
    ]


def learner(name: str, bf16: bool, steps: int) -> AdaptedModel:
    """hanse's learner, with one batch of examples for each step."""
    base = load(BaseModelSettings(name, bf16=bf16), classes=2 if name == ENCODER else 0)
    adapter = base.attach(Lora(r=RANK, target_modules="all-linear"), 0)
    training = TrainingSettings(max_steps=steps, per_device_train_batch_size=BATCH)
    examples = {"train": rows(BATCH * steps)}
    context = RoundContext(0, 1, "client")
    return AdaptedModel(base, adapter, examples, training, Classify(), context, 1, {})


def plain(ours: AdaptedModel) -> Plain:
    """The plain loop for the same model, adapter, precision and examples."""
    base = ours.backbone
    source, dtype = pretrained.find(base.name), torch.bfloat16 if base.bf16 else torch.float32
    classes = {"num_labels": 2} if base.name == ENCODER else {}
    model = base.head.auto.from_pretrained(source.place, dtype=dtype, **classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about a property of transformers
        adapted = get_peft_model(model, copy.deepcopy(base.model.peft_config[ours.adapter]))
    steps = ours.training.max_steps
    assert steps is not None
    return Plain(adapted, ours.examples("train"), base.bf16, steps)


def save(model: Any, folder: Path) -> str:
    """Save a model with random weights and a tokenizer of one word; the name of its folder."""
    model.save_pretrained(folder)
    word = "<|endoftext|>"
    tokenizer = Tokenizer(models.WordLevel({word: 0}, unk_token=word))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=word).save_pretrained(folder)
    return str(folder)


def seconds_an_event(tiny: AdaptedModel, repeats: int = 10) -> float:
    """Seconds that the profiler adds for an event, in training a tiny model."""
    tiny.fit()
    without = min(clock(tiny.fit) for _ in range(repeats))
    profiles = [profiled(tiny.fit, steps=1) for _ in range(repeats)]
    return (min(profile.seconds for profile in profiles) - without) / profiles[0].events


def measure(ours: AdaptedModel, repeats: Repeats, event: float) -> Iterator[dict[str, Any]]:
    """A result for each loop: seconds of a step, its shares, its speed.

    event: seconds that the profiler adds for an event.
    """
    other = plain(ours)
    trained = [sum(p.numel() for p in loop) for loop in (ours.parameters().values(), _live(other))]
    if trained[0] != trained[1]:
        raise RuntimeError(f"the loops train {trained[0]} and {trained[1]} weights")
    loops: dict[str, Callable[[], object]] = {"ours": ours.fit, "plain": other.fit}
    seconds: dict[str, list[float]] = {loop: [] for loop in loops}
    profiles: dict[str, list[Profile]] = {loop: [] for loop in loops}
    for fit in loops.values():  # the first time, libraries prepare themselves
        fit()
    for repeat in range(repeats.timed):
        for loop, fit in loops.items():
            seconds[loop].append(clock(fit) / repeats.steps)
            if repeat < repeats.profiled:
                profiles[loop].append(profiled(fit, repeats.steps))
    per_step = step_flops(ours)
    dtype = torch.bfloat16 if ours.backbone.bf16 else torch.float32
    peak = flops.peak(ours.backbone.device, dtype)
    for loop in loops:
        yield {
            **{"loop": loop, "seconds": seconds[loop]},
            "step_seconds": statistics.median(seconds[loop]),
            **shares(min(profiles[loop], key=lambda profile: profile.seconds), event),
            **speed(statistics.median(seconds[loop]), per_step, peak),
        }


def _live(loop: Plain) -> list[torch.nn.Parameter]:
    return [parameter for parameter in loop.model.parameters() if parameter.requires_grad]


@dataclass(frozen=True)
class Profile:
    """One profiled training, for each step: seconds of it and of its operators, and events."""

    seconds: float
    work: dict[Work, float]
    events: int


def profiled(fit: Callable[[], object], steps: int) -> Profile:
    """Train once with the profiler."""
    spent = 0.0

    def work() -> None:
        nonlocal spent
        spent = clock(fit)

    found, events = by_work(work, {RANK})
    return Profile(
        spent / steps, {key: value / steps for key, value in found.items()}, events // steps
    )


def shares(profile: Profile, event: float) -> dict[str, Any]:
    """The shares of a step by kind, which have the sum 1, and the largest operators."""
    kinds: dict[str, float] = defaultdict(float)
    for key, seconds in profile.work.items():
        kinds[key.kind] += seconds
    added, known = profile.events * event, sum(kinds.values())
    rest = max(0.0, profile.seconds - added - known)
    whole = known + rest
    largest = sorted(profile.work, key=profile.work.__getitem__, reverse=True)[:LARGEST]
    return {
        "profiled_step_seconds": profile.seconds,
        "profiler_adds_seconds": added,
        "shares": {**{kind: kinds[kind] / whole for kind in KINDS}, DISPATCH: rest / whole},
        "largest": [{**key._asdict(), "share": profile.work[key] / whole} for key in largest],
    }


def step_flops(ours: AdaptedModel) -> float | None:
    """Floating-point operations of a step; None if torch cannot count them."""
    counted = flops.per_token(ours, ours.objective, ours.examples("train"))
    return counted["train_flops_per_token"] * BATCH * TOKENS if counted else None


def speed(step: float, per_step: float | None, peak: float) -> dict[str, float | None]:
    """Tokens and floating-point operations a second, and their share of the machine's peak."""
    return {
        "tokens_a_second": BATCH * TOKENS / step,
        "flops_a_second": None if per_step is None else per_step / step,
        "peak_flops": peak,
        "share_of_peak": None if per_step is None else per_step / step / peak,
    }


def shown(case: dict[str, Any]) -> str:
    """A line for whoever watches."""
    order = sorted(case["shares"], key=case["shares"].__getitem__, reverse=True)
    shares = ", ".join(f"{kind} {100 * case['shares'][kind]:.1f} %" for kind in order)
    peak = case["share_of_peak"]
    return (
        f"{case['model']} {case['precision']} {case['loop']}: {1000 * case['step_seconds']:.0f} ms "
        f"(the profiler adds {1000 * case['profiler_adds_seconds']:.0f}), "
        f"{'?' if peak is None else f'{100 * peak:.0f}'} % of the peak; {shares}"
    )


def main() -> None:
    """Measure all models in both precisions, print a line for each loop, keep the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="the encoder alone, a few steps")
    parser.add_argument("--model", action="append", choices=MODELS, help="these models alone")
    chosen = parser.parse_args()
    repeats = Repeats(2, 2, 1) if chosen.short else Repeats()
    cases = []
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        places = {GPT2: save(gpt2_small(), Path(folder, GPT2))}
        tiny = save(toy(), Path(folder, "toy"))
        event = seconds_an_event(learner(tiny, bf16=False, steps=1))
        for name in chosen.model or ([ENCODER] if chosen.short else MODELS):
            for bf16 in (False, True):
                ours = learner(places.get(name, name), bf16, repeats.steps)
                for found in measure(ours, repeats, event):
                    precision = "bfloat16" if bf16 else "float32"
                    cases.append({"model": name, "precision": precision, **found})
                    print(shown(cases[-1]), flush=True)
    setting = {"batch": BATCH, "tokens": TOKENS, "rank": RANK, "seconds_an_event": event}
    print(keep("profile_step", {**setting, "cases": cases}))


if __name__ == "__main__":
    main()
