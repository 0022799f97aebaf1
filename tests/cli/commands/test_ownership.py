"""hanse ownership: keys, verification by tensors and by answers, certificates, and mistakes."""

import hashlib
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from hanse.audit.ownership import key as owners
from hanse.audit.ownership import triggers
from hanse.audit.ownership.key import OwnershipKey
from hanse.experiment.loading import load
from hanse.security import kits
from hanse.simulation import run as simulation
from samples import Outcome, write_experiment

Hanse = Callable[..., Outcome]
LONG = (
    "adapter={lora: {r: 8, target_modules: [q_proj, v_proj, o_proj]}}",
    *("num_clients=2", "data.partition=iid", "train.max_steps=12", "rounds=9"),
)


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, review_file: Path) -> Path:
    """A folder with a run that both silos have marked with one key that has triggers, and a kit."""
    home = tmp_path_factory.mktemp("marked")
    owners.write(home / "silo-1.key", OwnershipKey("silo-1", "ab" * 32, triggers=40))
    owners.write(home / "other.key", OwnershipKey("silo-9", "cd" * 32, triggers=40))
    file = write_experiment(home, tiny_llama, review_file)
    own = [f"clients.silo-{n}.ownership={{key: silo-1.key, share: 0.5}}" for n in (1, 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        simulation.run(load(file, [*LONG, *own]))
    kits.make_keys(home / "kit", "silo-1")
    return home


def test_a_key_is_made_once_and_for_its_owner_alone(hanse: Hanse, tmp_path: Path) -> None:
    done = hanse("ownership", "key", "a.key", "--owner", "silo-a", "--triggers", 3)
    assert done.code == 0, done.err
    assert "next     before you train, let others date this hash" in done.out
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    secret = json.loads((tmp_path / "a.key").read_text())["seed"]
    assert secret not in done.out
    assert hanse("ownership", "key", "a.key", "--owner", "silo-a").code == 2


def test_the_key_of_a_run_is_found(hanse: Hanse, marked: Path) -> None:
    done = hanse("ownership", "verify", marked / "run", "--key", marked / "silo-1.key")
    assert done.code == 0, done.err
    assert "64 of 64 bits of silo-1's key are right" in done.out
    assert "p = 5.4e-20; 56 prove it" in done.out
    assert "verdict  fits, but the key may have been made afterwards" in done.out
    folder = hanse("ownership", "verify", marked / "run/adapter", "--key", marked / "silo-1.key")
    assert folder.out == done.out


def test_another_models_key_is_not_found(hanse: Hanse, marked: Path) -> None:
    done = hanse("ownership", "verify", marked / "run", "--key", marked / "other.key")
    assert done.code == 1
    assert "no mark of this key, as a stranger's key would be right as often" in done.out


def test_the_answers_to_secret_prompts_tell_of_the_key(hanse: Hanse, marked: Path) -> None:
    asked = ["ownership", "verify", marked / "run", "--prompts", "--key"]
    own, other = hanse(*asked, marked / "silo-1.key"), hanse(*asked, marked / "other.key")
    assert own.code == 0, own.out + own.err
    assert "trigger prompts of silo-1's key are right" in own.out
    assert other.code == 1, other.out


def test_a_model_behind_an_interface_is_verified_by_its_answers(
    hanse: Hanse, marked: Path, tmp_path: Path
) -> None:
    """The answers are those of a service that has learned them, and of one that has not."""
    own, run = ("--key", marked / "silo-1.key"), ("--experiment", marked / "run")
    verify = ("ownership", "verify", *own, *run)
    out = hanse(*verify, "--write-prompts", "prompts.jsonl")
    assert out.code == 0 and "written  prompts.jsonl, 40 prompts for a classifier of 2" in out.out
    prompts = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert prompts[0]["prompt"].startswith("Review: ") and prompts[0]["labels"]
    secret = owners.read(marked / "silo-1.key")
    labels = {word: word for word in prompts[0]["labels"]}
    words = [triggers.label(secret, row["id"], labels) for row in prompts]
    lines = [json.dumps({"id": n, "answer": word}) for n, word in enumerate(words)]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines[:39]))
    done = hanse(*verify, "--answers", "answers.jsonl")
    assert done.code == 0, done.out + done.err
    assert "39 of 40 prompts were answered; the others count as wrong" in done.out
    assert "39 of 40 trigger prompts of silo-1's key are right" in done.out
    (tmp_path / "answers.jsonl").write_text('"positive"\n' * 40)
    other = hanse(*verify, "--answers", "answers.jsonl")
    assert other.code == 1 and "40 of 40 prompts were answered" in other.out


def test_a_certificate_is_checked_with_the_public_part(
    hanse: Hanse, marked: Path, tmp_path: Path
) -> None:
    key, kit = ("--key", marked / "silo-1.key"), ("--kit", marked / "kit")
    assert hanse("ownership", "certify", marked / "run", *key, *kit).code == 0
    text = (tmp_path / "ownership.json").read_text()
    secret = json.loads((marked / "silo-1.key").read_text())["seed"]
    assert secret not in text and "commitment" in text and "product" not in text
    public = ("--certificate", "ownership.json", "--public", marked / "kit/silo-1.pub")
    alone = hanse("ownership", "verify", marked / "run", *public)
    assert alone.code == 0, alone.err
    assert "signed   by silo-1 (SHA256:" in alone.out and "who dates it 20" in alone.out
    assert "note" not in alone.out and "bits not counted" in alone.out
    assert "states   64 of 64 bits of the key of silo-1 are in these files" in alone.out
    assert "only the key shows that this is true" in alone.out
    both = hanse("ownership", "verify", marked / "run", *public, *key)
    assert both.code == 0 and "verdict  fits, but the key may have been made" in both.out
    wrong = hanse("ownership", "verify", marked / "run", *public, "--key", marked / "other.key")
    assert wrong.code == 2 and "commits its owner to another key" in wrong.err


def test_a_certificate_of_other_files_is_refused(
    hanse: Hanse, marked: Path, tmp_path: Path
) -> None:
    key, kit = ("--key", marked / "silo-1.key"), ("--kit", marked / "kit")
    assert hanse("ownership", "certify", marked / "run", *key, *kit).code == 0
    other = tmp_path / "other"
    other.mkdir()
    config, weights = "adapter_config.json", "adapter_model.safetensors"
    (other / config).write_bytes((marked / "run/adapter" / config).read_bytes())
    tensors = load_file(marked / "run/adapter" / weights)
    save_file({name: tensor + 1e-6 for name, tensor in tensors.items()}, other / weights)
    public = ("--certificate", "ownership.json", "--public", marked / "kit/silo-1.pub")
    done = hanse("ownership", "verify", other, *public)
    assert done.code == 2 and "is a certificate of other files than those of" in done.err
    assert hanse("ownership", "verify", other, *key).code == 0, "the mark itself is still there"


def test_a_key_alone_is_certified_before_training(hanse: Hanse, marked: Path) -> None:
    key, kit = ("--key", marked / "silo-1.key"), ("--kit", marked / "kit")
    assert hanse("ownership", "certify", *key, *kit, "--out", "early.json").code == 0
    public = ("--certificate", "early.json", "--public", marked / "kit/silo-1.pub")
    done = hanse("ownership", "verify", *public, *key)
    assert done.code == 0 and "states   silo-1 has a key of 64 bits" in done.out
    other = hanse("ownership", "verify", *public, "--key", marked / "other.key")
    assert other.code == 2 and "commits its owner to another key" in other.err
    of_a_run = hanse("ownership", "verify", marked / "run", *public)
    assert of_a_run.code == 2 and "and nothing of an adapter" in of_a_run.err


def test_a_certificate_of_the_key_stands_beside_an_adapter(
    hanse: Hanse, marked: Path, tmp_path: Path
) -> None:
    key, kit = ("--key", marked / "silo-1.key"), ("--kit", marked / "kit")
    run, public = marked / "run", ("--public", marked / "kit/silo-1.pub")
    assert hanse("ownership", "certify", *key, *kit, "--out", "early.json").code == 0
    done = hanse("ownership", "verify", run, *key, "--certificate", "early.json", *public)
    assert done.code == 0, done.err
    assert "verdict  this model has the mark of this key, which its signer dates 20" in done.out
    late = hanse("ownership", "certify", run, *key, *kit, "--early", "early.json")
    assert late.code == 0, late.err
    digest = hashlib.sha256((tmp_path / "early.json").read_bytes()).hexdigest()
    shown = hanse("ownership", "verify", run, "--certificate", "ownership.json", *public)
    assert f"early    it refers to the certificate with the SHA-256 {digest}" in shown.out
    again = ("--early", "ownership.json", "--out", "x.json")
    wrong = hanse("ownership", "certify", run, *key, *kit, *again)
    assert wrong.code == 2 and "is a certificate of an adapter" in wrong.err


def test_a_signer_who_is_not_the_owner_is_named(hanse: Hanse, marked: Path) -> None:
    words = ("--key", marked / "other.key", "--kit", marked / "kit", "--name", "silo-1")
    assert hanse("ownership", "certify", *words).code == 0
    public = ("--certificate", "ownership.json", "--public", marked / "kit/silo-1.pub")
    done = hanse("ownership", "verify", *public)
    assert done.code == 0 and "silo-1 signed, and the key is silo-9's" in done.out


MISTAKES = {
    "no key": (["verify", "{home}/run"], "name a key with --key"),
    "no folder": (["verify", "--key", "{home}/silo-1.key"], "name the folder of a run"),
    "a certificate without its signer": (
        ["verify", "{home}/run", "--certificate", "x.json"],
        "belong together",
    ),
    "prompts without a key": (
        ["verify", "{home}/run", "--certificate", "x", "--public", "y", "--prompts"],
        "name it with --key",
    ),
    "prompts for nobody": (["verify", "--write-prompts", "p.jsonl"], "name a key with --key"),
    "answers about nobody": (
        ["verify", "--certificate", "x", "--public", "y", "--answers", "a.jsonl"],
        "--answers is about the secret prompts of a key",
    ),
    "answers beside a model": (
        ["verify", "{home}/run", "--key", "{home}/silo-1.key", "--answers", "a.jsonl"],
        "--answers verifies a service by its answers alone",
    ),
    "both steps": (
        ["verify", "--key", "k", "--answers", "a.jsonl", "--write-prompts", "p.jsonl"],
        "leave out the folder, --prompts, and the other step",
    ),
    "an experiment beside a model": (
        ["verify", "{home}/run", "--key", "{home}/silo-1.key", "--experiment", "x.yaml"],
        "--experiment belongs to --write-prompts and --answers",
    ),
    "no run": (["verify", "{home}", "--key", "{home}/silo-1.key"], "holds neither a run"),
    "too few bits": (["key", "b.key", "--owner", "b", "--bits", "8"], "fewer prove nothing"),
    "another's model": (
        [
            "certify",
            "{home}/run",
            "--key",
            "{home}/other.key",
            "--kit",
            "{home}/kit",
            "--name",
            "silo-1",
        ],
        "does not have this key's mark, so nothing was signed",
    ),
    "no kit": (["certify", "--key", "{home}/silo-1.key"], "kit has no silo-1.key"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(hanse: Hanse, marked: Path, case: str) -> None:
    words, sentence = MISTAKES[case]
    done = hanse("ownership", *(word.format(home=marked) for word in words))
    assert done.code == 2 and sentence in done.err, done.err
    assert done.err.count("hanse: ") == 1
