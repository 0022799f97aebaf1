"""The rows that the server and each client hold, and the examples made of them."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import NamedTuple

from hanse.data.example import Example
from hanse.data.formats.row import Row
from hanse.data.tokenization import prompt_template, render
from hanse.data.tokenization.token_cache import Tokenized
from hanse.experiment.assembly.dataset.federated_dataset import FederatedDataset
from hanse.experiment.schema import (
    Experiment,
    build_algorithm,
    build_objective,
    build_tasks,
)
from hanse.learners.models.settings import BaseModelSettings

SERVER = ""  # the holder of the rows that no client holds
PUBLIC = "public"  # the split of the public rows, of which all holders have the same


class Reader(NamedTuple):
    """A model that reads rows.

    holder: the client's name, or SERVER. name: that of a model beside the trained one; empty for
        the trained one.
    """

    holder: str
    name: str = ""


@dataclass(frozen=True)
class SplitRows:
    """Rows of one split that one model turns into examples in one way.

    example_kind, template: as `render.render` takes them. model: the model's settings.
    """

    reader: Reader
    split: str
    rows: list[Row]
    example_kind: str
    template: str
    model: BaseModelSettings


def split_rows(
    experiment: Experiment,
    settings: Mapping[str, Experiment],
    dataset: FederatedDataset,
    names: Mapping[str, Sequence[str]],
) -> Iterator[SplitRows]:
    """The rows of each participant and of the server, and the public rows of who needs them.

    settings: each participant's experiment. A participant that holds all clients' rows reads each
    row with the template of the client that it was dealt to.
    names: of each holder's models beside the trained one, which read the same rows.
    """
    for split in _of_trained(experiment, settings, dataset):
        yield split
        holder = split.reader.holder
        for name in names.get(holder, ()):
            model = settings.get(holder, experiment).models[name]
            yield replace(split, reader=Reader(holder, name), model=model)


def _of_trained(
    experiment: Experiment, settings: Mapping[str, Experiment], dataset: FederatedDataset
) -> Iterator[SplitRows]:
    """The rows that the trained model of each holder reads, as `split_rows`."""
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
                yield SplitRows(Reader(name), split, rows, kind, text, own.model)
    for split, rows in (("validation", dataset.validation), ("test", dataset.test)):
        template_text = experiment.data.template
        yield SplitRows(Reader(SERVER), split, rows, test_kind, template_text, experiment.model)
    yield from _public(experiment, settings, dataset, train_kind)


def _public(
    experiment: Experiment,
    settings: Mapping[str, Experiment],
    dataset: FederatedDataset,
    example_kind: str,
) -> Iterator[SplitRows]:
    """The public rows for each holder that the algorithm gives them to.

    Where models may differ, a long text is cut, since windows would be other parts of it for each.
    """
    if (public := experiment.data.public) is None:
        return
    algorithm = build_algorithm(experiment)
    needed, unlike = algorithm.needs_public, algorithm.clients_may_differ == "model"
    holders = {SERVER: experiment} if "server" in needed else {}
    holders |= settings if "clients" in needed else {}
    template = public.template or experiment.data.template
    for holder, own in holders.items():
        rows = dataset.public.rows
        model = replace(own.model, long_texts="cut") if unlike else own.model
        yield SplitRows(Reader(holder), PUBLIC, rows, example_kind, template, model)


def refuse_unfit(splits: Sequence[SplitRows], labels: Mapping[str, str]) -> None:
    """Raise UserError for rows that cannot become examples, before a model is loaded."""
    rows: defaultdict[tuple[str, str], dict[int, list[Row]]] = defaultdict(dict)
    for split in splits:  # many may have the same public rows
        rows[split.example_kind, split.template][id(split.rows)] = split.rows
    for (example_kind, template), lists in rows.items():
        render.refuse_unfit([*chain(*lists.values())], example_kind, labels, template)


def unread_columns(splits: Sequence[SplitRows], reads: Mapping[str, str]) -> list[str]:
    """A remark on columns that data.template names, if the trained model reads no template.

    reads: the kind of examples that the model makes of each kind, as its head declares it.
    """
    columns: dict[str, None] = {}
    for split in splits:
        is_plain = not split.reader.name and reads.get(split.example_kind) == "class_labels"
        if is_plain and split.rows and split.rows[0].kind == "labelled":
            texts = (*prompt_template.names(split.rows[0]), prompt_template.TEXT)
            fields = prompt_template.parse(split.template).fields
            columns |= dict.fromkeys(set(fields) - {*texts, prompt_template.PAIR})
    if not columns:
        return []
    return [
        f"not used: {', '.join(sorted(columns))} of data.template, since this model reads texts "
        "without a prompt; a causal model reads the whole template."
    ]


def read(
    splits: Sequence[SplitRows], reader: Callable[[SplitRows], Tokenized]
) -> dict[Reader, dict[str, Sequence[Example]]]:
    """The examples of each model by split; one row is one example, or several windows of a text.

    All rows are tokenized here, so that a bad one is found before anything is trained. Rows with
    the same reader are tokenized together, whoever holds them. Models that read one list of rows in
    the same way, such as the public ones, share its examples.
    """
    lists: defaultdict[Tokenized, dict[int, list[Row]]] = defaultdict(dict)  # by their identity
    readers = [(split, reader(split)) for split in splits]
    for split, tokenized in readers:
        lists[tokenized][id(split.rows)] = split.rows
    shared = {
        (tokenized, key): examples
        for tokenized, group in lists.items()
        for key, examples in zip(group, tokenized.examples([*group.values()]), strict=True)
    }
    pieces: defaultdict[tuple[Reader, str], list[Sequence[Example]]] = defaultdict(list)
    for split, tokenized in readers:
        pieces[split.reader, split.split].append(shared[tokenized, id(split.rows)])
    result: defaultdict[Reader, dict[str, Sequence[Example]]] = defaultdict(dict)
    for (model, name), parts in pieces.items():
        result[model][name] = parts[0] if len(parts) == 1 else [*chain(*parts)]
    return dict(result)
