"""hanse kit: the keys and certificates of the server and the silos."""

from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.options import console
from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.security import keys, kits
from hanse.security import members as bundles
from hanse.security.keys import Public

with lazy_imports():
    from hanse.learners.models import model_hash

app = typer.Typer(
    name="kit",
    add_completion=False,
    help="Keys and certificates of the server and the silos.",
    no_args_is_help=True,
)

Kit = Annotated[Path, typer.Option("--kit", help="The folder of the kit.")]
Name = Annotated[str, typer.Argument(help="The silo's name, such as silo-a.")]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", help="A name or address of the server for silos; may repeat."),
]
Days = Annotated[int, typer.Option(min=1, max=3650, help="How long the certificate holds.")]
HERE = Path("kit")


@app.command()
def init(host: Hosts = None, days: Days = 365, kit: Kit = HERE) -> None:
    """On the server: make its certificate authority, its certificate and its signing key."""
    server = kits.init(kit, host or [], days)
    console.print(f"made     {kit}, the server's kit; back it up, and keep it to yourself")
    console.print(f"server   {keys.fingerprint(keys.line(server.signing.public_key()))}")
    console.print("next     hanse kit enrol SILO.pub, for each silo's file", soft_wrap=True)


@app.command()
def renew(host: Hosts = None, days: Days = 365, kit: Kit = HERE) -> None:
    """On the server: make a new certificate of the same authority; silos change nothing."""
    hosts = kits.renew(kit, host or [], days)
    console.print(f"renewed  {kit / 'tls.crt'} for {', '.join(hosts)}", soft_wrap=True)


@app.command()
def key(name: Name, kit: Kit = HERE) -> None:
    """On a silo: make its private keys, and the public file for the server."""
    public = kits.make_keys(kit, name)
    _show(public)
    console.print(f"private  {kit / name}.key and {kit / name}.ssh stay here", soft_wrap=True)
    console.print(
        f"next     send {kit / name}.pub to the server's administrator, and put the ca.crt and "
        f"server.pub that come back into {kit}",
        soft_wrap=True,
    )


@app.command()
def enrol(
    file: Annotated[Path, typer.Argument(help="A silo's public file, such as silo-a.pub.")],
    kit: Kit = HERE,
) -> None:
    """On the server: let a silo take part."""
    kits.open_server(kit)  # nobody is enrolled where there is no server
    public = keys.read(file)
    new = kits.enrol(kit, public)
    _show(public)
    console.print(f"{'enrolled' if new else 'known'} as {public.name} in {kit / 'silos'}")
    console.print(
        f"next     compare the fingerprints with {public.name} by telephone, and send it "
        f"{kit / 'ca.crt'} and {kit / 'server.pub'}",
        soft_wrap=True,
    )


@app.command()
def revoke(name: Name, kit: Kit = HERE) -> None:
    """On the server: exclude a silo and its keys for ever."""
    kits.revoke(kit, name)
    console.print(f"revoked  {name}; restart a server that is running", soft_wrap=True)


@app.command()
def bundle(
    out: Annotated[Path, typer.Option(help="Where the file goes.")] = Path("members.pub"),
    kit: Kit = HERE,
) -> None:
    """On the server: write all silos' public keys into one file, for the silos to trust."""
    opened = kits.open_server(kit)
    if not opened.silos:
        raise UserError(f"no silo is enrolled in {kit}; run `hanse kit enrol SILO.pub` first.")
    out.write_text(bundles.written(opened), encoding="ascii")
    console.print(f"written  {out} with {', '.join(opened.silos)}", soft_wrap=True)


@app.command()
def trust(
    file: Annotated[Path, typer.Argument(help="The server's file of members, members.pub.")],
    kit: Kit = HERE,
) -> None:
    """On a silo: trust the other silos, which then check that the server sends all the same."""
    new = bundles.trust(kit, file)
    for public in new:
        _show(public)
    if not new:
        console.print("nobody new")
        return
    console.print(
        "next     compare the fingerprints with these silos by telephone: the server's word alone "
        "could be for silos that it made up",
        soft_wrap=True,
    )


@app.command("hash")
def hash_(
    model: Annotated[str, typer.Argument(help="A model's folder, .gguf file or short name.")],
) -> None:
    """Print the hash of a base model, for policy.models in silo.yaml."""
    digest = model_hash.hash_of(model)
    if digest is None:
        raise UserError(
            f"the model {model} is not on this machine; download it, and name its folder."
        )
    print(digest)


def _show(public: Public) -> None:
    node, signing = public.fingerprints
    console.print(f"{public.name:<8} node {node}, signing {signing}", soft_wrap=True)
