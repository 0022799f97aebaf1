"""Reads .arrow files through pyarrow (the extra `data`), such as those of Dataset.save_to_disk."""

from collections.abc import Iterable, Iterator
from typing import Any

from hanse.data.formats.cells import listed
from hanse.data.formats.row import Record
from hanse.data.sources.readers import class_names
from hanse.data.sources.readers.class_names import NO_CLASSES, ClassSettings
from hanse.errors import UserError

FILE = b"ARROW1"  # begins a file with an index; others are streams


def records(content: bytes, name: str, classes: ClassSettings = NO_CLASSES) -> Iterator[Record]:
    """The rows of a file, batch by batch; raises UserError for a damaged file."""
    pa = pyarrow(name, "an arrow file")
    open_file = pa.ipc.open_file if content.startswith(FILE) else pa.ipc.open_stream
    number = 0
    try:
        with open_file(pa.BufferReader(content)) as reader:
            batches = (
                map(reader.get_batch, range(reader.num_record_batches))
                if content.startswith(FILE)
                else reader
            )
            for number, record in enumerate(rows(reader.schema, batches, name, classes), 1):
                yield f"{name}: row {number}", record
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise damaged(name, number, "arrow", error) from None


def rows(
    schema: Any, batches: Iterable[Any], name: str, classes: ClassSettings
) -> Iterator[dict[str, Any]]:
    """The records of the batches of a table; classes that have names become these names."""
    columns = schema.names
    twice = [key for key in dict.fromkeys(columns) if columns.count(key) > 1]
    if twice:
        raise UserError(f"{name}: two columns have the same name, {listed(twice)}.")
    namings = class_names.of_metadata(schema.metadata, classes)
    namings = {column: naming for column, naming in namings.items() if column in columns}
    for batch in batches:
        for record in batch.to_pylist():
            yield dict(class_names.named(record, namings))


def pyarrow(name: str, kind: str) -> Any:
    """The package that reads tables; raises UserError if it is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            f"{name} is {kind}, and pyarrow, which reads it, is missing; run pip install "
            '"hanse[data]", or convert the file to .jsonl.'
        ) from None
    return pyarrow


def damaged(name: str, number: int, kind: str, error: Exception) -> UserError:
    """The error for a file that cannot be read after so many rows."""
    place = f"{name}: after row {number}, the file" if number else name
    reason = " ".join(str(error).split())
    return UserError(f"{place} cannot be read as {kind}: {reason:.200}; write it again.")
