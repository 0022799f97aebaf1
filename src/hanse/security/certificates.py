"""TLS certificates: the federation's own authority, and the server certificate that it signs."""

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hanse import atomic_files
from hanse.errors import UserError

AUTHORITY_DAYS = 3650
EARLY = timedelta(hours=1)  # certificates are valid from this long ago, for clocks that are late
HOST = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9-]{1,63}", re.I)


def authority(folder: Path, days: int = AUTHORITY_DAYS) -> None:
    """Write ca.key and ca.crt: an ECDSA key on P-384 that signs the server's certificate."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hanse federation")])
    builder = _builder(name, name, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(True, 0), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    _write_key(folder / "ca.key", key)
    _write(folder / "ca.crt", builder.sign(key, hashes.SHA384()))


def server(folder: Path, hosts: Sequence[str], days: int) -> None:
    """Write tls.key and tls.crt for a server with these hosts, signed by the folder's authority."""
    authority, signer = read(folder / "ca.crt"), read_key(folder / "ca.key")
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hanse server")])
    builder = _builder(name, authority.subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    builder = builder.add_extension(_usage(authority=False), critical=True)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    builder = builder.add_extension(usage, critical=False)
    names = x509.SubjectAlternativeName([_general(host) for host in hosts])
    builder = builder.add_extension(names, critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(issuer, critical=False)
    _write_key(folder / "tls.key", key)
    _write(folder / "tls.crt", builder.sign(signer, hashes.SHA384()))


def refuse_hosts(hosts: Sequence[str]) -> None:
    """Raise UserError for a text that is no host name or IP address."""
    for host in hosts:
        _general(host)


def refuse_untimely(file: Path, advice: str, now: datetime | None = None) -> x509.Certificate:
    """The certificate in a file; raises UserError if it has expired or is not valid yet.

    advice: the user's next step if it has expired.
    """
    certificate, now = read(file), now or datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise UserError(f"{file} expired on {certificate.not_valid_after_utc:%Y-%m-%d}; {advice}.")
    if now < certificate.not_valid_before_utc:
        raise UserError(
            f"{file} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on, "
            f"and the clock of this machine says {now:%Y-%m-%d %H:%M}; set the clock."
        )
    return certificate


def refuse_unfit(folder: Path) -> None:
    """Raise UserError if tls.crt was not issued by ca.crt, or does not belong to tls.key."""
    certificate, authority = read(folder / "tls.crt"), read(folder / "ca.crt")
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise UserError(
            f"{folder / 'tls.crt'} was not issued by the authority in {folder / 'ca.crt'}, so no "
            "silo would accept it; run `hanse kit renew`."
        ) from None
    if read_key(folder / "tls.key").public_key() != certificate.public_key():
        raise UserError(
            f"{folder / 'tls.key'} is not the key of {folder / 'tls.crt'}; run `hanse kit renew`."
        )


def names(certificate: x509.Certificate) -> list[str]:
    """The hosts that a server certificate names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def read(file: Path) -> x509.Certificate:
    """The certificate in a PEM file."""
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise UserError(f"the certificate {file} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise UserError(f"{file} is no certificate in PEM's format; bring back the file.") from None


def read_key(file: Path) -> EllipticCurvePrivateKey:
    """The private key of a certificate, from a PEM file."""
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise UserError(f"the key {file} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UserError(f"{file} is no key in PEM's format; bring back the file.") from None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise UserError(f"{file} holds no ECDSA key; bring back the right file.")
    return key


def _builder(
    name: x509.Name, issuer: x509.Name, key: EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, name, key, x509.random_serial_number())
    builder = builder.not_valid_before(now - EARLY).not_valid_after(now + timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    """A host in the form of certificates; raises UserError if the text is no host."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not HOST.fullmatch(host):
        raise UserError(f"{host!r:.80} is no host; give a name such as fl.example.org, or an IP.")
    return x509.DNSName(host)


def _write(file: Path, certificate: x509.Certificate) -> None:
    atomic_files.write(file, certificate.public_bytes(serialization.Encoding.PEM), public=True)


def _write_key(file: Path, key: EllipticCurvePrivateKey) -> None:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    data = key.private_bytes(*form, serialization.NoEncryption())
    atomic_files.write(file, data, private=True)
