"""silo.yaml: what loads means what was written, and what does not load says why, and where."""

from pathlib import Path

import pytest

from hanse.deployment.silo.settings import SiloSettings, is_loopback, load
from hanse.errors import UserError

GOOD = """\
name: silo-a
server: 127.0.0.1:8000
kit: kit
data:
  path: reviews.jsonl
  filter: {source: imdb}
state: state/silo-a
cache: none
policy:
  max_steps: 20
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "reviews.jsonl").write_text('{"text": "a film", "label": "good"}\n')
    return tmp_path


def loaded(home: Path, text: str) -> SiloSettings:
    (home / "silo.yaml").write_text(text)
    return load(home / "silo.yaml")


def test_paths_are_those_beside_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "elsewhere").mkdir()
    (home / "elsewhere" / "reviews.jsonl").write_text("")
    monkeypatch.chdir(home / "elsewhere")
    silo = loaded(home, GOOD)
    assert silo.data.path == str(home / "reviews.jsonl")
    assert (silo.kit, silo.state, silo.cache) == (home / "kit", home / "state/silo-a", None)


def test_only_what_is_given_overrides_the_experiment(home: Path) -> None:
    overrides = loaded(home, GOOD).data.overrides
    assert overrides == {"path": str(home / "reviews.jsonl"), "filter": {"source": "imdb"}}


def test_a_corpus_is_known_by_its_short_name(home: Path) -> None:
    silo = loaded(home, GOOD.replace("reviews.jsonl", "movie-reviews"))
    assert silo.data.path == "movie-reviews"


def test_host_and_port(home: Path) -> None:
    silo = loaded(home, GOOD.replace("127.0.0.1:8000", "'[::1]:9000'"))
    assert (silo.host, silo.port, silo.loopback) == ("::1", 9000, True)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback(host: str, here: bool) -> None:
    assert is_loopback(host) is here


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("kit: kit", "kid: kit", 3, "there is no setting 'kid' (did you mean 'kit'?); a silo has"),
        ("max_steps", "max_step", 10, "(did you mean 'max_steps'?); policy has models"),
        ("max_steps: 20", "max_steps: -1", 10, "policy.max_steps is -1; input should be greater"),
        ("  path: reviews.jsonl\n", "", 4, "data.path is missing"),
        ("reviews.jsonl", "review.jsonl", 5, "there is no 'review.jsonl'"),
        ("filter:", "test:", 6, "there is no setting 'test'"),
        ("127.0.0.1:8000", "127.0.0.1", 2, "server is '127.0.0.1'; write the host and the port"),
        ("127.0.0.1:8000", "127.0.0.1:99999", 2, "write the host and the port"),
        ("silo-a\nserver", "../a\nserver", 1, "name is '../a'; it is a name of letters"),
        ("cache: none", "name: b", 8, "is not valid YAML: the key 'name' is given twice"),
        ("max_steps: 20", "models: [abc]", 10, "policy.models.0 is 'abc'"),
        ("max_steps: 20", "compression: bf16", 10, "it must be a list, such as [a, b]"),
        ("max_steps: 20", "compression: []", 10, "it must have at least 1 item"),
    ],
)
def test_a_mistake_is_said_with_its_line(
    home: Path, old: str, new: str, line: int, said: str
) -> None:
    with pytest.raises(UserError) as caught:
        loaded(home, GOOD.replace(old, new))
    assert said in str(caught.value)
    assert f"silo.yaml:{line}" in str(caught.value) or "missing" in said


def test_without_a_kit_only_to_this_machine(home: Path) -> None:
    alone = GOOD.replace("kit: kit", "kit: none")
    assert loaded(home, alone).kit is None
    with pytest.raises(UserError, match=r"server is hub.example.org:8000, .* `hanse kit key`"):
        loaded(home, alone.replace("127.0.0.1", "hub.example.org"))


def test_a_file_that_is_not_there(home: Path) -> None:
    with pytest.raises(UserError, match=r"the silo's settings .* cannot be read"):
        load(home / "silos.yaml")


@pytest.mark.parametrize("mode", [0o666, 0o646])
def test_a_law_that_others_can_write_is_refused(home: Path, mode: int) -> None:
    loaded(home, GOOD)
    (home / "silo.yaml").chmod(0o664)
    load(home / "silo.yaml")
    (home / "silo.yaml").chmod(mode)
    with pytest.raises(UserError, match=r"mode 06\d\d, so other users could change what this silo"):
        load(home / "silo.yaml")
