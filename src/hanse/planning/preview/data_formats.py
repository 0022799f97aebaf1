"""The format of each data source, by the columns of its first record."""

from hanse.data.formats.invalid_rows import InvalidRows
from hanse.data.formats.row import Reading, reading, with_names
from hanse.data.sources import corpora, files
from hanse.data.sources.split_files import TEST, TRAIN, VALIDATION
from hanse.errors import UserError
from hanse.experiment.schema import Experiment
from hanse.experiment.sections import Data


def readings(experiment: Experiment) -> list[tuple[str, Reading]]:
    """Each data source, with the reading of its first record's columns."""
    owners = [experiment]
    if experiment.brings_own_data:
        owners = [experiment.for_client(name) for name in experiment.client_names]
    sources = [(TRAIN, settings.data.path, settings.data) for settings in owners]
    for split in (VALIDATION, TEST):
        path = getattr(experiment.data, split)
        sources += [(split, path, experiment.data)] if isinstance(path, str) else []
    formats = []
    for split, path, data in sources:
        formats.append((path, _first_reading(path, split, data)))
    return formats


def _first_reading(path: str, split: str, data: Data) -> Reading:
    """The reading of the first valid record's columns; invalid ones are reported with the rows."""
    invalid = InvalidRows(data.skip_invalid)
    options = files.Options(invalid.add, lambda remark: None, data.encoding)
    names, records = with_names(corpora.records(path, split, options))
    for place, record in records:
        try:
            return reading(record, data.columns, place, names)
        except UserError as fault:
            invalid.add(place, fault)
    raise UserError(f"{path} holds no rows; give a file with at least one example.")
