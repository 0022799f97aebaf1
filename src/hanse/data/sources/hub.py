"""Data sets by their hub's name, through `datasets` (the extra `data`).

Code that comes with a data set is never run.
"""

import re
from collections.abc import Iterator
from typing import Any

from hanse.data.formats.row import Record
from hanse.data.sources.split_files import TRAIN
from hanse.errors import UserError
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work

PATIENCE = 10  # seconds for the hub's first word; `datasets` alone would try for half a minute
NAME = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?")


def is_name(path: str) -> bool:
    """Whether this may be a hub's `owner/name`, or `owner/name:config`."""
    return NAME.fullmatch(path) is not None and not path.startswith((".", "-"))


def records(path: str, split: str = TRAIN) -> Iterator[Record]:
    """The rows of one split of a data set; labels that have names come by their names.

    Raises UserError with what was tried and what to do, within seconds if there is no network.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"{path!r} is no file here, and to look for it on the hub the package datasets is "
            'missing; run pip install "hanse[data]", or give a local file.'
        ) from None
    found = NAME.fullmatch(path)
    assert found is not None  # is_name
    name, config = found.groups()
    _refuse_unreachable(name)
    report(Work(Activity.LOADING_DATASET, path))
    try:
        rows = datasets.load_dataset(name, config, split=split, trust_remote_code=False)
        named = {
            column: feature
            for column, feature in rows.features.items()
            if isinstance(feature, datasets.ClassLabel)
        }
        for number, record in enumerate(rows, 1):
            labels = {column: _label(feature, record[column]) for column, feature in named.items()}
            yield f"{path}: row {number}", {**record, **labels}
    # Whatever transport, file format or checksum fails, each library raises errors of its own.
    except Exception as error:
        raise UserError(
            f"the data set {path!r} cannot be loaded from the hub: {_reason(error)}; a "
            "configuration is named as owner/name:config, and the split must be called "
            f"{split}; or download the files, and give the folder."
        ) from None


def _refuse_unreachable(name: str) -> None:
    """Ask the hub once for the data set; offline, what was downloaded before is left to be used."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return
    try:
        HfApi().dataset_info(name, timeout=PATIENCE)
    except GatedRepoError:
        raise UserError(
            f"the data set {name!r} asks for consent: agree on its page, then log in with "
            "`hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"there is no file or folder {name!r} here, and no data set of that name on "
            f"{constants.ENDPOINT}, or it is private: mend the name, or log in with "
            "`hf auth login`."
        ) from None
    except HfHubHTTPError as error:
        raise UserError(f"{constants.ENDPOINT} refuses {name!r}: {_reason(error)}.") from None
    # Which library carries the requests depends on the version, and so does what it raises.
    except Exception as error:
        raise UserError(
            f"there is no file or folder {name!r} here, and {constants.ENDPOINT} cannot be reached "
            f"for a data set of that name ({_reason(error)}); give a local file, or download the "
            "data set where there is a network; what lies in the hub's cache already is used with "
            "HF_HUB_OFFLINE=1."
        ) from None


def _label(feature: Any, value: Any) -> str | None:
    """A class's name; the hub writes −1 where a label is kept secret."""
    return feature.int2str(value) if isinstance(value, int) and value >= 0 else None


def _reason(error: Exception) -> str:
    """The first line of an error, without its full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0]:.200}".rstrip(". ")
