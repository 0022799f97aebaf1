"""The commented YAML of a first experiment."""

import importlib.util
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from hanse.data.sources.corpora import CORPORA
from hanse.learners.models.model_files import DEFAULT, PACKAGED
from hanse.planning.first_experiment.data_summary import Source
from hanse.planning.first_experiment.defaults import Plan
from hanse.planning.first_experiment.token_lengths import TokenLengths
from hanse.planning.yaml_comments import line, scalar

NUMBER = re.compile(r"[-+]?\d+|true|false", re.IGNORECASE)
ASIDE = "\t# "  # begins a comment; filtered values contain no tab
COLUMN = 34  # where comments begin


def page(
    file: Path,
    name: str,
    model: str,
    sources: Mapping[str, Source],
    plan: Plan,
    held: Mapping[str, str],
) -> str:
    """The text of an experiment with one source that is divided, or with a source at each silo.

    held: paths of files for test or validation, by the split. Paths below the folder of the file
        are written from there.
    """
    template = Path(__file__).with_name("experiment.yaml.jinja").read_text(encoding="utf-8")
    environment = Environment(  # noqa: S701 (YAML; every value of the user's passes a filter)
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {
        "path": partial(local, home=file.resolve().parent),
        "yaml": scalar,
        "note": note,
        "line": line,
    }
    first = next(iter(sources.values()))
    rouge = importlib.util.find_spec("rouge_score") is not None
    text = environment.from_string(template).render(
        file=file,
        name=name,
        model=model,
        plan=plan,
        silos=sources if len(sources) > 1 else {},
        source=first,
        held=held,
        aside=ASIDE,
        time=time_guess(plan, model),
        lengths=length_note(plan.lengths),
        unnamed=bool(plan.labels) and all(map(NUMBER.fullmatch, plan.labels)),
        scored="[exact_match, rouge_l]" if rouge else "[exact_match]",
    )
    return "\n".join(map(_aligned, text.rstrip().split("\n"))) + "\n"


def time_guess(plan: Plan, model: str) -> str:
    """The time of a run in words: a guess, and only for the model that the rule of thumb is for."""
    if model != DEFAULT:
        return "`hanse check` measures it"
    minutes = round(plan.seconds / 60)
    guess = f"about {minutes} minutes" if minutes > 1 else "about a minute"
    return f"a guess is {guess} on two cores; `hanse check` measures it"


def length_note(lengths: TokenLengths) -> str:
    """The rows that fit into max_length, in words."""
    if lengths.guessed:
        return "tokens; a guess, `hanse check` counts them"
    fit = f"all {lengths.counted:,} counted rows fit"
    return f"tokens; {fit if lengths.fit else lengths.excess}"


def _aligned(line: str) -> str:
    """A line whose comment, if it has one, begins in the column of comments."""
    code, tab, comment = line.partition("\t")
    return f"{code:<{COLUMN - 2}}  {comment}" if tab else line


def local(path: str, home: Path) -> str:
    """A path from the folder of the experiment if it lies there; any other name unchanged.

    The experiment and its data may then move together.
    """
    place = Path(path)
    if not place.is_absolute() or place == home or not place.is_relative_to(home):
        return path
    name = place.relative_to(home).as_posix()
    if name.startswith("~"):  # would be a user's home
        return path
    return f"./{name}" if name in {*CORPORA, *PACKAGED} else name


def note(value: object) -> str:
    """A value in a comment, on one line of at most 60 characters."""
    text = line(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
