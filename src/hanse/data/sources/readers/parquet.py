"""Reads parquet files through pyarrow (the extra `data`)."""

from collections.abc import Iterator

from hanse.data.formats.row import Record
from hanse.data.sources.readers import arrow
from hanse.data.sources.readers.class_names import NO_CLASSES, ClassSettings


def records(content: bytes, name: str, classes: ClassSettings = NO_CLASSES) -> Iterator[Record]:
    """The rows of a file, batch by batch; raises UserError for a damaged file."""
    pa = arrow.pyarrow(name, "a parquet file")
    number = 0
    try:
        with pa.parquet.ParquetFile(pa.BufferReader(content)) as file:
            rows = arrow.rows(file.schema_arrow, file.iter_batches(), name, classes)
            for number, record in enumerate(rows, 1):
                yield f"{name}: row {number}", record
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise arrow.damaged(name, number, "parquet", error) from None
