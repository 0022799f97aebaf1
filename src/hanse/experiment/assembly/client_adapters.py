"""The adapters of clients beside the server's: what they begin with, and what each trains."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from hanse.errors import UserError
from hanse.experiment.assembly.resources import adapter_folder, adapter_settings
from hanse.experiment.schema import Experiment, build_algorithm
from hanse.federation.interfaces.declarations import Difference, includes
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.injection import adapter_files
from hanse.learners.injection.adapter import Adapter
from hanse.tensors.layouts import refuse_outside
from hanse.tensors.named import Tensors, layout, shapes

UNLIKE = (
    "give all clients the same base model and the same adapter, or choose an algorithm for "
    "unequal models: feddistill or fedmkt, or fedkd, with which each client keeps one of its own"
)


def begin(
    server: AdaptedModel, client: AdaptedModel, name: str, settings: Experiment, differ: Difference
) -> None:
    """Set a client's own adapter to what it begins with.

    That is the server's first tensors, unless the client may and does train others; then it is what
    the client's settings give. Raises UserError if it trains what the algorithm cannot combine.
    settings: the experiment with this client's. differ: in what clients may differ.
    """
    if differ == "model":
        if settings.adapter.source is not None:
            load_adapter(client, settings.adapter.source)
        return
    theirs, own = server.parameters(), client.parameters()
    if differ == "layout" and shapes(own) != shapes(theirs):
        with naming_client(name):
            refuse_outside(own, theirs)
    elif not (differ == "rank" and client.rank != server.rank and own.keys() == theirs.keys()):
        with naming_client(name):  # it would be left out of every round
            _refuse_unlike(server, client)
        client.backbone.set_initial(client.adapter, server.initial())


def declared(learner: AdaptedModel, differ: Difference) -> Tensors | None:
    """The layout of what a learner trains, in the order of names; None if no algorithm asks."""
    if not includes(differ, "layout"):
        return None
    parameters = learner.parameters()
    return layout({name: parameters[name] for name in sorted(parameters)})


def expected(server: AdaptedModel, experiment: Experiment) -> dict[str, Tensors | None] | None:
    """The layout that each client will declare, from its settings; None if no algorithm asks.

    A client's entry is None if the server cannot know: the client's model may not be here.
    Raises UserError for a client that trains what the algorithm cannot combine.
    """
    differ = build_algorithm(experiment).clients_may_differ
    if (mine := declared(server, differ)) is None:
        return None
    known: dict[Adapter, Tensors] = {adapter_settings(experiment): mine}
    layouts: dict[str, Tensors | None] = dict.fromkeys(experiment.participant_names)
    for name in layouts:
        client = experiment.for_client(name)
        if differ == "model" and not _fits_server(client, experiment):
            continue
        adapter = adapter_settings(client)
        with naming_client(name):
            if adapter not in known:
                known[adapter] = _attached(server, adapter, experiment.seed, differ)
            if differ == "layout":
                refuse_outside(known[adapter], mine)
        layouts[name] = known[adapter]
    return layouts


def _fits_server(client: Experiment, server: Experiment) -> bool:
    """True if a client has the server's base model, and an adapter of the kind that is in it."""
    same_model = client.model.model_name_or_path == server.model.model_name_or_path
    if not same_model or client.adapter.source != server.adapter.source:
        return False
    kinds = (adapter_settings(experiment).kinds[0] for experiment in (client, server))
    first, second = ((type(kind), getattr(kind, "method", "")) for kind in kinds)
    return first == second


def _attached(server: AdaptedModel, adapter: Adapter, seed: int, differ: Difference) -> Tensors:
    """The layout of an adapter in the server's model, which it is put into for a moment."""
    backbone = server.backbone
    name = backbone.attach(adapter, seed)
    try:
        return declared(replace(server, adapter=name, frozen={}), differ) or {}
    finally:
        backbone.detach(name)


def _refuse_unlike(server: AdaptedModel, client: AdaptedModel) -> None:
    """Raise UserError for tensors that cannot be averaged with the server's."""
    own, theirs = ({n: p.shape for n, p in x.parameters().items()} for x in (client, server))
    if own == theirs:
        return
    one = min(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name))
    why = f"only {'one' if one in own else 'the other'} of them has {one}"
    if one in own and one in theirs:
        sizes = [" × ".join(map(str, group[one])) for group in (own, theirs)]
        why = f"{one} is {sizes[0]} in it and {sizes[1]} in the server's"
    raise UserError(
        f"its model {client.backbone.name} trains other tensors than the server's "
        f"{server.backbone.name}: {why}; {UNLIKE}."
    )


@contextmanager
def naming_client(client: str) -> Iterator[None]:
    """Within, a UserError begins with the client's name; an empty one stands for the server."""
    try:
        yield
    except UserError as error:
        if not client:
            raise
        raise UserError(f"clients.{client}: {error}") from None


def load_adapter(learner: AdaptedModel, source: str) -> None:
    """Load the adapter in a run folder or PEFT folder into a learner, with its constants."""
    parameters = learner.parameters()
    content = adapter_files.read(adapter_folder(source))[1]
    tensors = {name: tensor for name, tensor in content.items() if name in parameters}
    sizes = {name: tensor.shape for name, tensor in tensors.items()}
    if sizes != {name: parameter.shape for name, parameter in parameters.items()}:
        raise UserError(
            f"the adapter in {source} does not fit {learner.backbone.name}; "
            "go on with the base model that it was trained for."
        )
    learner.backbone.set_initial(learner.adapter, tensors)
    learner.backbone.read_constants(learner.adapter, content)
