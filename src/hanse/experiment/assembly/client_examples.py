"""The rows that the server and each client hold, and the examples made of them."""

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
from hanse.experiment.schema import Experiment, build_objective, build_tasks
from hanse.learners.models.settings import BaseModelSettings

LOSSES = {
    Lost.TURNS: "earlier turns",
    Lost.SYSTEM: "the end of the system turn",
    Lost.PROMPT: "the beginning of what is asked",
    Lost.TEXT: "the end of the text",
    Lost.ANSWER: "the end of the answer",
}
SERVER = ""  # the holder of the rows that no client holds


@dataclass(frozen=True)
class SplitRows:
    """Rows of one split that one holder turns into examples in one way.

    holder: the client's name, or SERVER. example_kind, template: as `render.render` takes them.
    """

    holder: str
    split: str
    rows: list[Row]
    example_kind: str
    template: str
    model: BaseModelSettings


def split_rows(
    experiment: Experiment, settings: Mapping[str, Experiment], dataset: FederatedDataset
) -> Iterator[SplitRows]:
    """The rows of each participant and of the server.

    settings: each participant's experiment. A participant that holds all clients' rows reads each
    row with the template of the client that it was dealt to.
    """
    train_kind = build_objective(experiment).example_kind
    test_kind = next(iter(build_tasks(experiment).values())).example_kind
    splits = (("train", train_kind, dataset.train), ("test", test_kind, dataset.held))

    def template(client: str) -> str:
        return (settings.get(client) or experiment.for_client(client)).data.template

    for name, own in settings.items():
        clients = experiment.client_names if experiment.data.pooled else [name]
        for split, kind, held in splits:
            for text, group in groupby(clients, template):
                rows = [row for client in group for row in held[client]]
                yield SplitRows(name, split, rows, kind, text, own.model)
    for split, rows in (("validation", dataset.validation), ("test", dataset.test)):
        template_text = experiment.data.template
        yield SplitRows(SERVER, split, rows, test_kind, template_text, experiment.model)


def refuse_unfit(splits: Sequence[SplitRows], labels: Mapping[str, str]) -> None:
    """Raise UserError for rows that cannot become examples, before a model is loaded."""
    rows: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for split in splits:
        rows[split.example_kind, split.template] += split.rows
    for (example_kind, template), group in rows.items():
        render.refuse_unfit(group, example_kind, labels, template)


def read(
    splits: Sequence[SplitRows], reader: Callable[[SplitRows], Tokenized]
) -> dict[str, dict[str, Sequence[Example]]]:
    """The examples of each holder by split; one row is one example.

    All rows are tokenized here, so that a bad one is found before anything is trained. Rows with
    the same reader are tokenized together, whoever holds them.
    """
    rows: defaultdict[Tokenized, list[Row]] = defaultdict(list)
    places = []
    for split in splits:
        tokenized = reader(split)
        group = rows[tokenized]
        places.append((split, tokenized, slice(len(group), len(group) + len(split.rows))))
        group += split.rows
    examples = {tokenized: tokenized.examples(group) for tokenized, group in rows.items()}
    result: defaultdict[str, dict[str, Sequence[Example]]] = defaultdict(dict)
    for (holder, name), group_places in groupby(
        places, lambda place: (place[0].holder, place[0].split)
    ):
        pieces = [examples[tokenized][place] for _, tokenized, place in group_places]
        result[holder][name] = pieces[0] if len(pieces) == 1 else [*chain(*pieces)]
    return dict(result)


def cut(examples: Mapping[str, Mapping[str, Sequence[Example]]], max_length: int) -> Iterator[str]:
    """Remarks on the training rows and the held-out rows that max_length cuts.

    examples: by holder and split.
    """
    for title, is_training in (("training", True), ("held-out", False)):
        chosen = [
            split_examples
            for splits in examples.values()
            for split, split_examples in splits.items()
            if (split == "train") == is_training
        ]
        lost = np.concatenate([np.zeros(0, np.uint8), *map(packed.lost, chosen)])
        losses = [
            f"{count:,} lose {text}"
            for part, text in LOSSES.items()
            if (count := int(np.count_nonzero(lost & np.uint8(part))))
        ]
        if losses:
            rows = f"{np.count_nonzero(lost):,} of {len(lost):,} {title} rows"
            yield f"model.max_length ({max_length:,}) cuts {rows}: {', '.join(losses)}."
