"""A hub's data are read through `datasets`; without network, one sentence within seconds."""

import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from hanse.data.sources.corpora import load
from hanse.errors import UserError

datasets = pytest.importorskip("datasets")
huggingface_hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")


def _found(monkeypatch: pytest.MonkeyPatch, load_dataset: Callable[..., Any]) -> None:
    """A hub that has whatever is asked for."""
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_rows_have_their_labels_names(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    asked: list[Any] = []

    def found(*names: str | None, **settings: Any) -> Any:
        asked.append((names, settings))
        return datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)

    _found(monkeypatch, found)
    rows = load("owner/name:config")
    assert [(row.text, row.label, row.place) for row in rows] == [
        ("a", "pos", "owner/name:config: row 1"),
        ("b", "neg", "owner/name:config: row 2"),
    ]
    assert asked == [(("owner/name", "config"), {"split": "train", "trust_remote_code": False})]


def test_a_label_that_is_kept_secret_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    table = datasets.Dataset.from_dict({"text": ["a"], "label": [-1]}, features=features)
    _found(monkeypatch, lambda *_, **__: table)
    with pytest.raises(UserError, match="owner/name: row 1: label is empty"):
        load("owner/name")


def test_what_the_library_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError("Config name is missing.\nPlease pick one.")

    _found(monkeypatch, refuse)
    with pytest.raises(
        UserError, match=r"'owner/name' cannot be .*: Config name is missing; a con"
    ):
        load("owner/name")


def _answer(status: int) -> Any:
    request = SimpleNamespace(method="GET", url="u")
    return SimpleNamespace(status_code=status, headers={}, request=request)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError("[Errno -2] Name or service not known"), "cannot be reached for .*not known"),
        (TimeoutError(), r"cannot be reached .*\(TimeoutError\); give a local file, or download"),
        (errors.RepositoryNotFoundError("404", response=_answer(404)), "no data set of that name"),
        (errors.GatedRepoError("403", response=_answer(403)), "asks for consent; agree on its pag"),
        (errors.HfHubHTTPError("500: busy", response=_answer(500)), "refuses .*: 500: busy"),
    ],
)
def test_what_the_hub_refuses(
    monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    def refuse(*_: Any, timeout: float, **__: Any) -> None:
        assert timeout <= 10
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("tried again"))
    with pytest.raises(UserError, match=sentence):
        load("owner/name")


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    # A port at which nothing listens, so that this does not depend on the machine's network.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    api = huggingface_hub.HfApi(endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"there is no file or folder 'owner/name' here, and http:"):
        load("owner/name")
    assert time.monotonic() - begin < 5


def test_offline_what_was_downloaded_before_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    table = datasets.Dataset.from_dict({"text": ["kept"]})
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    assert load("owner/name")[0].text == "kept"


def test_without_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        UserError, match=r'datasets, which is missing; run pip install "hanse\[data\]", or'
    ):
        load("owner/name")
