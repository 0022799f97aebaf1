"""Reads parquet files through pyarrow (the extra `data`)."""

from collections.abc import Iterator

from hanse.data.formats.cells import listed
from hanse.data.formats.row import Record
from hanse.errors import UserError


def records(content: bytes, name: str) -> Iterator[Record]:
    """The rows of a file, batch by batch; raises UserError for a damaged file."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(
            f"{name} is a parquet file, and pyarrow, which reads it, is missing; run pip install "
            '"hanse[data]", or convert the file to .jsonl.'
        ) from None
    number = 0
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            columns = file.schema_arrow.names
            twice = [key for key in dict.fromkeys(columns) if columns.count(key) > 1]
            if twice:
                raise UserError(f"{name}: two columns have the same name, {listed(twice)}.")
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield f"{name}: row {number}", record
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        place = f"{name}: after row {number}, the file" if number else name
        reason = " ".join(str(error).split())
        raise UserError(
            f"{place} cannot be read as parquet: {reason:.200}; write it again."
        ) from None
