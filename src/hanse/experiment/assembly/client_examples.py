"""Who holds which rows, how they are read, and the examples that they become."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np

from hanse.data import packed
from hanse.data.example import Example, Lost
from hanse.data.formats.row import Row
from hanse.data.tokenization import render
from hanse.data.tokenization.token_cache import Tokenized
from hanse.experiment.assembly.federated_dataset import FederatedDataset
from hanse.experiment.schema import Experiment, build_objective
from hanse.learners.models.settings import BaseModelSettings

LOSSES = {
    Lost.TURNS: "earlier turns",
    Lost.SYSTEM: "the end of the system turn",
    Lost.PROMPT: "the beginning of what is asked",
    Lost.TEXT: "the end of the text",
    Lost.ANSWER: "the end of the answer",
}
SERVER = ""  # who holds the rows that no client does


@dataclass(frozen=True)
class SplitRows:
    """Rows of one split that one holder reads in one way.

    holder: the client, or SERVER. example_kind, template: as `render.render` takes them.
    """

    holder: str
    split: str
    rows: list[Row]
    example_kind: str
    template: str
    model: BaseModelSettings


def shares(
    experiment: Experiment, own: Mapping[str, Experiment], division: FederatedDataset, asked: str
) -> Iterator[SplitRows]:
    """What the participants hold, and what the server does.

    own: each participant's settings. asked: how tasks need their examples.
    Who holds all rows reads each as the client would to whom it was dealt.
    """
    example_kind = build_objective(experiment).example_kind
    splits = (("train", example_kind, division.train), ("test", asked, division.held))

    def template(owner: str) -> str:
        return (own.get(owner) or experiment.for_client(owner)).data.template

    for name, settings in own.items():
        owners = experiment.client_names if experiment.data.pooled else [name]
        for split, reads, held in splits:
            for alike, some in groupby(owners, template):
                rows = [row for owner in some for row in held[owner]]
                yield SplitRows(name, split, rows, reads, alike, settings.model)
    for split, rows in (("validation", division.validation), ("test", division.test)):
        yield SplitRows(SERVER, split, rows, asked, experiment.data.template, experiment.model)


def refuse_unfit(found: Sequence[SplitRows], labels: Mapping[str, str]) -> None:
    """Raise UserError for rows that no tokenizer could mend: a model is not loaded for them."""
    rows: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for share in found:
        rows[share.example_kind, share.template] += share.rows
    for (example_kind, template), some in rows.items():
        render.refuse_unfit(some, example_kind, labels, template)


def read(
    found: Sequence[SplitRows], reader: Callable[[SplitRows], Tokenized]
) -> dict[str, dict[str, Sequence[Example]]]:
    """The examples of each holder by split; one row is one example.

    All rows are tokenized here, so that a bad one is found before anything is trained; those that
    are read alike together, however many clients hold them.
    """
    rows: defaultdict[Tokenized, list[Row]] = defaultdict(list)
    places = []
    for share in found:
        by = reader(share)
        alike = rows[by]
        places.append((share, by, slice(len(alike), len(alike) + len(share.rows))))
        alike += share.rows
    known = {by: by.examples(some) for by, some in rows.items()}
    result: defaultdict[str, dict[str, Sequence[Example]]] = defaultdict(dict)
    for (holder, split), same in groupby(places, lambda place: (place[0].holder, place[0].split)):
        pieces = [known[by][place] for _, by, place in same]
        result[holder][split] = pieces[0] if len(pieces) == 1 else [*chain(*pieces)]
    return dict(result)


def cut(read: Mapping[str, Mapping[str, Sequence[Example]]], max_length: int) -> Iterator[str]:
    """How many training rows, and how many others, lose what since they are too long."""
    for what, chosen in (("training", True), ("held-out", False)):
        some = [
            examples
            for own in read.values()
            for split, examples in own.items()
            if (split == "train") == chosen
        ]
        lost = np.concatenate([np.zeros(0, np.uint8), *map(packed.lost, some)])
        parts = [
            f"{count:,} lose {words}"
            for part, words in LOSSES.items()
            if (count := int(np.count_nonzero(lost & np.uint8(part))))
        ]
        if parts:
            rows = f"{np.count_nonzero(lost):,} of {len(lost):,} {what} rows"
            yield f"model.max_length ({max_length:,}) cuts {rows}: {', '.join(parts)}."
