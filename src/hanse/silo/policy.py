"""A silo's own law: what it does for a server, whatever the server asks for."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from hanse.sections import Section

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Names = Annotated[tuple[str, ...], Field(min_length=1)]

# What may be a part from outside the package.
OUTSIDE = ("algorithms", "aggregators", "objectives", "tasks")

TRAINING = ("steps", "sum_lr", "examples", "tokens", "loss", "seconds", "*_seconds")
SCORES = ("accuracy", "accuracy_se", "macro_f1", "auc", "perplexity")


class Privacy(Section):
    """The least differential privacy under which a silo trains; none: it asks for none.

    clip: largest L2 norm of what one update changes.
    epsilon: largest ε of the whole run.
    """

    clip: PositiveFloat | None = None
    epsilon: PositiveFloat | None = None


class Policy(Section):
    """What a silo does for a server, and what it refuses.

    models: hashes of the base models it trains; none: any that is on this machine.
    adapters, algorithms, aggregators, objectives: names of parts; none: any of the package's own.
        A part from outside the package (`file.py:Class`) is refused unless it is named here, and
        then this silo's own file is used. An adapter to go on from is called `from`.
    tasks: what may be measured on this silo's own rows.
    max_steps: most optimizer steps of a round; max_examples: most examples that pass in one.
    max_rounds: most rounds of a run.
    max_tries: how many different requests to train in one round are done, or to evaluate; a server
        that was killed or paused asks for the same again, which is not counted.
    min_cohort: fewest silos of a round, this one counted.
    agreement: whether silos must agree on what they were sent before this one trains; require: yes,
        and it does not join if its kit knows no others (`always` is the former word for it); auto:
        if its kit knows others, and it says at its start if not.
    privacy: the least differential privacy.
    metrics: the numbers that may leave, as names or patterns such as *_seconds; others are dropped.
    reasons: whether the text of a failure may leave, which may quote a row. Else the server hears
        that there was one, and this silo's log has the text.
    """

    models: tuple[Hash, ...] = ()
    adapters: Names | None = None
    algorithms: Names | None = None
    aggregators: Names | None = None
    objectives: Names | None = None
    tasks: tuple[str, ...] = ("classification", "perplexity")
    max_steps: PositiveInt = 1_000
    max_examples: PositiveInt = 1_000_000
    max_rounds: PositiveInt = 1_000
    max_tries: PositiveInt = 3
    min_cohort: PositiveInt = 2
    agreement: Literal["auto", "require", "always", "never"] = "auto"
    privacy: Privacy = Privacy()
    metrics: tuple[str, ...] = (*TRAINING, *SCORES)
    reasons: bool = False
