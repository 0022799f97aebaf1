"""CG-FedLLM's learned codec: blocks of a change by an autoencoder that was trained on others."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cosine_similarity

from hanse.errors import UserError
from hanse.federation.interfaces.declarations import Stage
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.registry import ServerText
from hanse.tensors import autoencoder
from hanse.tensors.autoencoder import Autoencoder
from hanse.tensors.blockwise import Blocks, even_codes, even_levels
from hanse.tensors.named import Bounded, Layout, Tensors, drop, varies
from hanse.tensors.serialization import MessageError
from hanse.tensors.table import Table, floats, required

EMPTY, CODED, QUANTIZED = range(3)  # how a block travels
GROUP = 64  # numbers of a quantized block that share a step
UNIT = 2 * GROUP  # a block's size is a multiple of it
INT4 = Blocks(GROUP, bits=4)
FELL_BACK = "fallback_share"  # the number that says how many of the blocks were quantized
FILE = ServerText(
    lambda value: isinstance(value, str) and len(value) <= 1000,
    "a file's name of at most 1,000 characters, which a silo never reads",
)


class Message(NamedTuple):
    """The tensors of an encoded change with N blocks, M of them coded and Q quantized.

    table: names, dtypes and shapes. ways: (N,) how each block travels. exponents: (N,) of scales.
    codes: (M, K). levels: (Q, B/2), two numbers in a byte. steps: (Q, B/GROUP), the largest number
    of each group.
    """

    table: Tensor
    ways: Tensor
    exponents: Tensor
    codes: Tensor
    levels: Tensor
    steps: Tensor

    @staticmethod
    def of(tensors: Tensors) -> "Message":
        """The message in an encoded update's tensors; raises MessageError without it."""
        return Message(*(required(tensors, name) for name in NAMES))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by their names in an encoded update."""
        return dict(zip(NAMES, self, strict=True))


NAMES = tuple(f"cg_fedllm.{name}" for name in Message._fields)


@dataclass(frozen=True)
class CGFedLLM(Transform):
    """Changes as codes of an autoencoder, 1/64 of their numbers (2405.13746, phase FAF).

    Each block of B numbers of the change, never of the model, is divided by its scale and coded.
    A block whose decoded form is too unlike it, or farther from it than zero, travels as int4
    instead; the number fallback_share of each update says how many did.

    trained: the file that `hanse fit-codec` has written, at the server; clients are sent it once.
    gate: the least cosine of a block with what is decoded of its code.
    """

    trained: Annotated[str, FILE]
    gate: Annotated[float, Field(ge=0, le=1)] = 0.5

    linear: ClassVar[bool] = False
    stage: ClassVar[Stage | None] = "reduce"
    payloads: ClassVar[tuple[str, ...]] = ("change",)

    def weights(self) -> Tensors:
        """The autoencoder's matrices; raises UserError for a file that has none."""
        advice = "name a file that `hanse fit-codec` has written in cg_fedllm.trained."
        if not Path(self.trained).is_file():
            raise UserError(f"there is no trained codec {self.trained!r:.200}; {advice}")
        try:
            network = Autoencoder.read(load_file(self.trained))
        except (SafetensorError, ValueError) as error:
            raise UserError(
                f"{self.trained!r:.200} is no trained codec: {error}; {advice}"
            ) from None
        if network.block % UNIT:
            raise UserError(
                f"the trained codec {self.trained!r:.200} has blocks of {network.block} numbers, "
                f"and their size must be a multiple of {UNIT}; fit one with another --block."
            )
        return network.tensors

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """The table, and bounds of all other tensors; tensors of integers travel as they are."""
        numeric, network = floats(expected), Autoencoder.read(state)
        blocks = autoencoder.count(Table.of(numeric).numbers, network.block)
        ways, exponents = _meta(blocks, torch.uint8), _meta(blocks, torch.int8)
        bounds = [
            _meta((blocks, network.code), torch.float32),
            _meta((blocks, network.block // 2), torch.uint8),
            _meta((blocks, network.block // GROUP), torch.float16),
        ]
        fixed = [Bounded(form) if varies(numeric) else form for form in (ways, exponents)]
        forms = (Table.form(numeric), *fixed, *map(Bounded, bounds))
        return {**drop(expected, numeric), **dict(zip(NAMES, forms, strict=True))}

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """The update with its float tensors as codes, where these pass the gate."""
        numeric, network = floats(update.tensors), Autoencoder.read(state)
        table = Table.of(numeric)
        blocks = autoencoder.split(table.flatten(update.tensors), network.block)
        exponents = autoencoder.exponents(blocks)
        unit = blocks / autoencoder.scales(exponents)
        codes = network.to_codes(unit)
        ways = torch.where(_passes(unit, network.to_blocks(codes), self.gate), CODED, QUANTIZED)
        ways = torch.where(blocks.any(1), ways, EMPTY).to(torch.uint8)
        quantized = _quantized(unit[ways == QUANTIZED])
        message = Message(table.to_tensor(), ways, exponents, codes[ways == CODED], *quantized)
        return replace(update, tensors={**drop(update.tensors, numeric), **message.tensors})

    def decoded_bytes(self, update: Update, state: Tensors) -> int:
        """The bytes of all tensors, as the message's table has them."""
        others = sum(tensor.nbytes for tensor in drop(update.tensors, NAMES).values())
        return Table.read(Message.of(update.tensors).table).bytes + others

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """The update with its float tensors again, and with the share of blocks that fell back."""
        message, network = Message.of(update.tensors), Autoencoder.read(state)
        table = Table.read(message.table)
        _refuse_unlike(message, table, network)
        unit = torch.zeros(len(message.ways), network.block)
        unit[message.ways == CODED] = network.to_blocks(message.codes)
        unit[message.ways == QUANTIZED] = _dequantized(message.levels, message.steps)
        flat = (unit * autoencoder.scales(message.exponents)).reshape(-1)[: table.numbers]
        share = len(message.levels) / max(1, int((message.ways != EMPTY).sum()))
        tensors = {**drop(update.tensors, NAMES), **table.split(flat)}
        numbers = {**update.numbers, FELL_BACK: share}
        return replace(update, tensors=tensors, numbers=numbers)


def _meta(shape: int | tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _passes(unit: Tensor, decoded: Tensor, gate: float) -> Tensor:
    """(N,) true for blocks (N, B) that are like their decoded form, and nearer to it than to zero.

    Error feedback needs the second, since errors above the block itself would add up.
    """
    like: Tensor = cosine_similarity(unit, decoded, dim=1) >= gate
    return like.logical_and((unit - decoded).norm(dim=1) < unit.norm(dim=1))


def _quantized(unit: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks (Q, B) as int4: two levels in a byte, and the largest number of each GROUP."""
    count, block = unit.shape
    levels, steps = INT4.encode([unit.reshape(-1)], lambda rows, _: even_codes(rows, INT4.bits))
    return levels.reshape(count, block // 2), steps.reshape(count, block // GROUP).half()


def _dequantized(levels: Tensor, steps: Tensor) -> Tensor:
    """The blocks (Q, B) of `_quantized`."""
    unit = torch.empty(len(levels), 2 * levels.shape[1])
    INT4.decode(levels.reshape(-1), steps.reshape(-1).float(), even_levels(INT4.bits), [unit])
    return unit


def _refuse_unlike(message: Message, table: Table, network: Autoencoder) -> None:
    """Raise MessageError for tensors that do not belong together; nothing large is allocated."""
    blocks = autoencoder.count(table.numbers, network.block)
    ways, exponents = message.ways, message.exponents
    if ways.dtype != torch.uint8 or ways.shape != (blocks,) or bool((ways > QUANTIZED).any()):
        raise MessageError(f"{blocks} blocks came with ways of {tuple(ways.shape)}")
    least, most = autoencoder.SMALLEST, autoencoder.LARGEST
    if (
        exponents.dtype != torch.int8
        or exponents.shape != (blocks,)
        or bool(((exponents < least) | (exponents > most)).any())
    ):
        raise MessageError(f"the exponents of {blocks} blocks are not from {least} to {most}")
    coded, quantized = (int((ways == way).sum()) for way in (CODED, QUANTIZED))
    for name, tensor, form in (
        ("codes", message.codes, _meta((coded, network.code), torch.float32)),
        ("levels", message.levels, _meta((quantized, network.block // 2), torch.uint8)),
        ("steps", message.steps, _meta((quantized, network.block // GROUP), torch.float16)),
    ):
        if tensor.shape != form.shape or tensor.dtype != form.dtype:
            raise MessageError(f"{name} came as {tuple(tensor.shape)}, not {tuple(form.shape)}")
