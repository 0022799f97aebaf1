"""hanse ownership: keys of owners, and whether a model has their marks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanse import atomic_files
from hanse.audit.ownership import key as owners
from hanse.cli.options import Trust, console
from hanse.cli.service_files import ServiceFiles
from hanse.errors import UserError
from hanse.journal.run_settings import EXPERIMENT
from hanse.lazy_imports import lazy_imports
from hanse.security import keys, signed_records
from hanse.serving import adapter_folder

with lazy_imports():
    from hanse.audit.ownership import certificate as certificates
    from hanse.audit.ownership import verification
    from hanse.learners.injection import adapter_files
    from hanse.serving import trigger_answers

if TYPE_CHECKING:
    from hanse.audit.ownership.key import OwnershipKey
    from hanse.audit.ownership.verification import Detection

app = typer.Typer(
    name="ownership",
    add_completion=False,
    help="Prove that a model is yours: keys, verification, certificates.",
    no_args_is_help=True,
)

UNLIKELY = 1e-3  # a chance above it is what strangers' keys have

KeyFile = Annotated[Path, typer.Option("--key", help="The file of an owner's key.")]
Adapter = Annotated[
    Path | None,
    typer.Argument(help="A run or PEFT folder; needed unless a key alone is certified."),
]

AnyKey = Annotated[Path | None, typer.Option("--key", help="The file of an owner's key.")]
AsksModel = Annotated[
    bool, typer.Option("--prompts", help="Ask the model the key's secret prompts instead.")
]
CertificateFile = Annotated[
    Path | None, typer.Option(help="A certificate, ownership.json, to check as well.")
]
PublicFile = Annotated[
    Path | None, typer.Option(help="The public file of its signer, such as silo-a.pub.")
]
PromptsFile = Annotated[
    Path | None, typer.Option(help="Write the key's prompts here, for a service that answers.")
]
AnswersFile = Annotated[
    Path | None, typer.Option(help="The service's answers to them, one JSON object a line.")
]
TrainedBy = Annotated[
    Path | None,
    typer.Option(help="A classifier's experiment or run folder, with its template and labels."),
]


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="The file to make, such as silo-a.key.")],
    owner: Annotated[str, typer.Option(help="Whose mark it is, such as silo-a.")],
    bits: Annotated[int, typer.Option(help="Bits of the mark.")] = 64,
    place: Annotated[
        str, typer.Option(help="product (LoRA's B·A), or weights (tensors as they are).")
    ] = "product",
    tensors: Annotated[
        str, typer.Option(help="A pattern of the layers, or tensors, that are marked.")
    ] = "*",
    triggers: Annotated[int, typer.Option(help="Secret prompts with secret answers.")] = 0,
) -> None:
    """Make a key, which only you can read and which stays where it is made."""
    choices = {"bits": bits, "place": place, "tensors": tensors, "triggers": triggers}
    made = owners.draw(owner, **choices)
    owners.write(file, made)
    console.print(f"made     {file}, which you alone can read; keep a copy, and send it to nobody")
    console.print(f"commits  {made.commitment}", soft_wrap=True)
    console.print(
        "next     before you train, let others date this hash: `hanse ownership certify --key "
        f"{file}` signs it",
        soft_wrap=True,
    )


@app.command()
def verify(
    adapter: Adapter = None,
    key: AnyKey = None,
    prompts: AsksModel = False,
    certificate: CertificateFile = None,
    public: PublicFile = None,
    write_prompts: PromptsFile = None,
    answers: AnswersFile = None,
    experiment: TrainedBy = None,
    trust: Trust = False,
) -> None:
    """Say whether an adapter has the mark of a key; exit code 1 if it has not.

    With a certificate and no key its signature and files are checked, and no bits are counted. A
    model behind an interface is verified by its answers: --write-prompts, then --answers.
    """
    _refuse_words(key, prompts, certificate, public)
    service = ServiceFiles(write_prompts, answers, experiment)
    service.refuse_mixed(adapter, key, prompts)
    if (adapter or certificate or write_prompts or answers) is None:
        raise UserError(
            "name the folder of a run, or of a PEFT adapter, that the key is to verify."
        )
    if adapter is not None:
        adapter_folder.refuse_unfinished(adapter)
    secret, found = owners.read(key) if key is not None else None, None
    if secret is not None and write_prompts is not None:
        return service.write(secret, trust)
    if secret is not None and answers is not None:
        found = service.detected(secret, trust)
    elif secret is not None and adapter is not None:
        found = _asked(adapter, secret, trust) if prompts else _measured(adapter, secret)
    early, asked = "", prompts or answers is not None
    if certificate is not None and public is not None:
        early = _check(certificate, public, adapter, secret, None if asked else found)
    if secret is not None and found is not None:
        _show(secret, found, "trigger prompts" if asked else "bits", early)
        if not found.proves:
            raise typer.Exit(1)


@app.command()
def certify(
    key: KeyFile,
    adapter: Annotated[
        Path | None, typer.Argument(help="A run or PEFT folder; without one, the key alone.")
    ] = None,
    kit: Annotated[Path, typer.Option("--kit", help="The folder of the kit that signs.")] = Path(
        "kit"
    ),
    name: Annotated[
        str | None, typer.Option(help="The silo whose key signs, or server; usually the owner.")
    ] = None,
    early: Annotated[
        Path | None, typer.Option(help="An earlier certificate of the key alone, to refer to.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the certificate goes.")] = Path("ownership.json"),
) -> None:
    """Sign that an adapter has your mark, or that you have a key; others check it."""
    secret = owners.read(key)
    signing = signed_records.signing_key(kit, name or secret.owner)
    if out.exists():
        raise UserError(f"{out} exists already; name another file with --out.")
    if early is not None:
        _refuse_other_early(early, signing, secret)
    place = found = None
    if adapter is not None:
        adapter_folder.refuse_unfinished(adapter)
        place, found = _peft(adapter), _measured(adapter, secret)
        if not found.proves:
            _show(secret, found, "bits")
            raise UserError(f"{adapter} does not have this key's mark, so nothing was signed.")
    record = certificates.statement(secret, place, found, early)
    atomic_files.write(out, signed_records.signed(record, signing), public=True)
    console.print(
        f"written  {out}, with the key's owner, hash and number of bits, and not with the place of "
        "the mark",
        soft_wrap=True,
    )
    if found is None:
        console.print("next     send it to others now, so that they can say later when they had it")


def _refuse_words(
    key: Path | None, prompts: bool, certificate: Path | None, public: Path | None
) -> None:
    """Raise UserError for options of `verify` that lack one another."""
    if key is None and certificate is None:
        raise UserError("name a key with --key, or a certificate with --certificate.")
    if (certificate is None) != (public is None):
        raise UserError("--certificate and --public belong together: the signer is checked by it.")
    if prompts and key is None:
        raise UserError("--prompts asks the secret prompts of a key; name it with --key.")


def _peft(folder: Path) -> Path:
    """The PEFT folder of a finished run, or the folder itself."""
    return folder / "adapter" if (folder / EXPERIMENT).is_file() else folder


def _measured(folder: Path, key: "OwnershipKey") -> "Detection":
    return verification.detected(key, adapter_files.read(_peft(folder))[1])


def _asked(folder: Path, key: "OwnershipKey", trust: bool) -> "Detection":
    return trigger_answers.detected(folder, key, trusted=trust)


def _check(
    certificate: Path,
    public: Path,
    adapter: Path | None,
    key: "OwnershipKey | None",
    found: "Detection | None",
) -> str:
    """Print what a certificate states; raises UserError if it does not hold.

    Returns the date of a certificate of the key alone; empty for one of an adapter.
    """
    signer, known = signed_records.public_key(public)
    record = signed_records.opened(certificate, known)
    certificates.refuse_other(record, certificate, adapter and _peft(adapter), key, found)
    console.print(
        f"signed   by {signer} ({keys.fingerprint(keys.line(known))}), who dates it "
        f"{record['time']}",
        soft_wrap=True,
    )
    if signer != record["owner"]:
        console.print(
            f"note     {signer} signed, and the key is {record['owner']}'s: it is {signer}'s word",
            soft_wrap=True,
        )
    console.print(f"states   {certificates.summary(record)}", soft_wrap=True)
    console.print(f"commits  {record['commitment']}", soft_wrap=True)
    if "early" in record:
        console.print(
            f"early    it refers to the certificate with the SHA-256 {record['early']}; check that "
            "one with --key, too",
            soft_wrap=True,
        )
    if key is None:
        console.print(
            "next     bits not counted, since only the key shows that this is true: let its owner "
            "run `hanse ownership verify` with --key beside --certificate",
            soft_wrap=True,
        )
    return "" if "files" in record else str(record["time"])


def _refuse_other_early(early: Path, signing: Any, key: "OwnershipKey") -> None:
    """Raise UserError unless this signer has certified this key alone in an earlier file."""
    record = signed_records.opened(early, signing.public_key())
    certificates.refuse_other(record, early, key=key)
    if "files" in record:
        raise UserError(
            f"{early} is a certificate of an adapter; name one of the key alone with --early, "
            "signed before the training."
        )


def _show(key: "OwnershipKey", found: "Detection", items: str, early: str = "") -> None:
    """Print a detection and what follows from it; early: the date of the key's own certificate."""
    console.print(f"mark     {found.right} of {found.items} {items} of {key.owner}'s key are right")
    needed = found.needed
    least = f"{needed} prove it" if needed else "so few of them cannot prove it"
    console.print(f"chance   p = {found.p_value:.1e}; {least}", soft_wrap=True)
    verdict = (
        "fits, but the key may have been made afterwards; a certificate of the key that was signed "
        "before training proves more"
    )
    if early:
        verdict = (
            f"this model has the mark of this key, which its signer dates {early}: that proves it "
            "if the training began later"
        )
    if not found.proves and found.p_value > UNLIKELY:
        verdict = (
            "no mark of this key, as a stranger's key would be right as often; it is another "
            "model's key, or the mark is gone"
        )
    elif not found.proves:
        verdict = "not proved: too few answers are right, and too many for mere chance"
    console.print(f"verdict  {verdict}", soft_wrap=True)
