"""Reads data sets of a hub through `datasets` (the extra `data`).

The code of a data set is never run.
"""

import re
from collections.abc import Iterator

from hanse.data.formats.row import Record
from hanse.data.sources.readers import class_names
from hanse.data.sources.readers.class_names import NO_CLASSES, ClassSettings
from hanse.data.sources.split_files import TRAIN
from hanse.errors import UserError
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work

PATIENCE = 10  # seconds to the hub's first answer; `datasets` alone would try for half a minute
NAME = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?")


def is_name(path: str) -> bool:
    """Tell if this may be a hub's `owner/name` or `owner/name:config`."""
    return NAME.fullmatch(path) is not None and not path.startswith((".", "-"))


def records(path: str, split: str = TRAIN, classes: ClassSettings = NO_CLASSES) -> Iterator[Record]:
    """The rows of one split of a data set; labels that have names become these names.

    Raises UserError if it cannot be loaded, within seconds if there is no network.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"{path!r} is no file here, and looking for it on the hub needs the package datasets, "
            'which is missing; run pip install "hanse[data]", or give a local file.'
        ) from None
    match = NAME.fullmatch(path)
    assert match is not None  # is_name
    name, config = match.groups()
    _refuse_unreachable(name)
    report(Work(Activity.LOADING_DATASET, path))
    try:
        rows = datasets.load_dataset(name, config, split=split, trust_remote_code=False)
        namings = class_names.of_features(rows.features.to_dict(), classes)
        for number, record in enumerate(rows, 1):
            yield f"{path}: row {number}", class_names.named(record, namings)
    # Transports, file formats and checksums fail with errors of several libraries.
    except Exception as error:
        raise UserError(
            f"the data set {path!r} cannot be loaded from the hub: {_reason(error)}; a "
            "configuration is named as owner/name:config, and the split must be called "
            f"{split}; or download the files, and give the folder."
        ) from None


def _refuse_unreachable(name: str) -> None:
    """Raise UserError if the hub does not answer for the data set; offline, it is not asked."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return
    try:
        HfApi().dataset_info(name, timeout=PATIENCE)
    except GatedRepoError:
        raise UserError(
            f"the data set {name!r} asks for consent; agree on its page, then log in with "
            "`hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"there is no file or folder {name!r} here, and no data set of that name on "
            f"{constants.ENDPOINT}, or it is private; correct the name, or log in with "
            "`hf auth login`."
        ) from None
    except HfHubHTTPError as error:
        raise UserError(f"{constants.ENDPOINT} refuses {name!r}: {_reason(error)}.") from None
    # The library that carries the requests, and its errors, depend on the version.
    except Exception as error:
        raise UserError(
            f"there is no file or folder {name!r} here, and {constants.ENDPOINT} cannot be reached "
            f"for a data set of that name ({_reason(error)}); give a local file, or download the "
            "data set where there is a network; a data set that is in the hub's cache is read with "
            "HF_HUB_OFFLINE=1."
        ) from None


def _reason(error: Exception) -> str:
    """The first line of an error, without its full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0]:.200}".rstrip(". ")
