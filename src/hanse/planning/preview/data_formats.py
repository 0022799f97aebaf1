"""The format of each data source: how the columns of its first record are read."""

from hanse.data.formats.row import Reading, reading
from hanse.data.sources import corpora
from hanse.data.sources.split_files import TEST, TRAIN, VALIDATION
from hanse.experiment.schema import Experiment


def readings(experiment: Experiment) -> list[tuple[str, Reading]]:
    """Each data source, and how the columns of its first record are read."""
    owners = [experiment]
    if experiment.brings_own_data:
        owners = [experiment.for_client(name) for name in experiment.client_names]
    sources = [(TRAIN, settings.data.path, settings.data) for settings in owners]
    for split in (VALIDATION, TEST):
        path = getattr(experiment.data, split)
        sources += [(split, path, experiment.data)] if isinstance(path, str) else []
    formats = []
    for split, path, data in sources:
        place, record = next(iter(corpora.records(path, split=split)))
        formats.append((path, reading(record, data.columns, place)))
    return formats
