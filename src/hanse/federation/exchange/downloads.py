"""A round's instructions, encoded for the download: once for all clients that get the same."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hanse.federation.interfaces.results import Memory
from hanse.federation.messages import Instruction, Update
from hanse.federation.method import Method
from hanse.federation.pipeline import TransformStates
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors, digest, shapes

Memories = Mapping[str, dict[str, Memory]]  # of the transforms, by the group of clients
SEVERAL = "several-"  # before the hash of such a group of several clients


@dataclass
class Downloads:
    """Encodes the instructions of one round when they are asked for.

    Clients with the same instruction and pipeline are a group: they get the same bytes, and the
    server's memory of the download (such as what a lossy codec owes them) belongs to the group. A
    group keeps its memory from round to round if it is one client, or the only group with tensors
    of this layout. Any other group does only if the same clients form it in the next round, too:
    there may be a new one in every round.

    context: of the round. memories: by group, before the round.
    """

    method: Method
    states: TransformStates
    memories: Memories
    context: RoundContext
    instructions: Mapping[str, Instruction]
    _encoded: dict[str, Instruction] = field(default_factory=dict)
    _after: dict[str, dict[str, Memory]] = field(default_factory=dict)

    def encoded(self, client: str) -> Instruction:
        """The instruction to one client as it crosses the network."""
        instruction, pipeline = self.instructions[client], self.method.of(client).download
        if not pipeline.transforms:
            return instruction
        group = self._groups[client]
        if group not in self._encoded:
            memory = _copied(self.memories.get(group, {}))
            update = Update(instruction.tensors, instruction.numbers)
            update = pipeline.encode(update, memory, self.states, self.context)
            self._encoded[group] = Instruction(update.tensors, update.numbers)
            self._after[group] = {place: own for place, own in memory.items() if own}
        return self._encoded[group]

    @property
    def memories_after(self) -> dict[str, dict[str, Memory]]:
        """The memories of all groups once this round is counted."""
        lasting = {g: memory for g, memory in self.memories.items() if not g.startswith(SEVERAL)}
        return {**lasting, **self._after}

    @cached_property
    def _groups(self) -> dict[str, str]:
        """The group of each client."""
        contents: dict[
            tuple[tuple[str, int], ...], str
        ] = {}  # FedAvg gives all clients the same tensors
        layouts, members = {}, dict[tuple[str, str], list[str]]()
        for client, instruction in self.instructions.items():
            owner = self.method.of(client).download.owner
            layouts[client] = _hash([owner, shapes(instruction.tensors)])
            identity = tuple((name, id(t)) for name, t in instruction.tensors.items())
            if identity not in contents:
                contents[identity] = digest(instruction.tensors)
            content = _hash([contents[identity], sorted(instruction.numbers.items())])
            members.setdefault((layouts[client], content), []).append(client)
        alone = Counter(layout for layout, _ in members)
        return {
            client: layout if alone[layout] == 1 else _name(layout, clients)
            for (layout, _), clients in members.items()
            for client in clients
        }


def _name(layout: str, clients: Sequence[str]) -> str:
    """The name of a group beside others with tensors of its layout."""
    return (SEVERAL if len(clients) > 1 else "") + _hash([layout, clients])


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _copied(memory: Mapping[str, Tensors]) -> dict[str, Memory]:
    """A memory whose tensors may be changed in place: a round may be repeated."""
    return {place: {n: t.clone() for n, t in own.items()} for place, own in memory.items()}
