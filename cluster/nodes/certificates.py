"""TLS between the processes of a cluster, Ray's own (`RAY_USE_TLS`): an authority, and a certificate for each node.

Every process shows its node's certificate and lets nobody in whose certificate is not of the same authority. A node
holds its certificate and the authority's; the authority's key stays on the machine that made it. The job API and the
dashboard speak plain HTTP whatever is set here.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.errors import UserError

from .access import default_path

_YEAR = timedelta(days=365)
_AUTHORITY, _NODE = 10 * _YEAR, 2 * _YEAR
_EARLIER = timedelta(hours=1)  # clocks differ: a certificate is to be good elsewhere at once


@dataclass(frozen=True)
class Certificates:
    """What a node shows (`node.crt`, `node.key`) and whom it trusts (`ca.crt`), in one folder."""

    folder: Path

    def environment(self) -> dict[str, str]:
        """With which Ray's processes use them, and whoever connects to them must."""
        return {
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_CERT": str(self.folder / "node.crt"),
            "RAY_TLS_SERVER_KEY": str(self.folder / "node.key"),
            "RAY_TLS_CA_CERT": str(self.folder / "ca.crt"),
        }


def home(environment: Mapping[str, str] = os.environ) -> Path:
    """Beside the token."""
    return default_path(environment).with_name("tls")


def of_this_machine(folder: Path | None = None) -> Certificates:
    """A new certificate for all names and addresses that this machine has now, of the authority that is kept here.

    Raises UserError.
    """
    at = folder or home()
    addresses = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries]
    names = ["localhost", socket.gethostname(), *(name.partition("%")[0] for name in filter(_is_address, addresses))]
    return issue(names, at, at)


def issue(names: Iterable[str], to: Path, authority: Path | None = None) -> Certificates:
    """A certificate for a node of these names and addresses, written to a folder; the authority is made when missing.

    Raises UserError for an authority that cannot be read, or whose time is over.
    """
    at = authority or home()
    certificate, key = _authority(at)
    known = [_name(name) for name in dict.fromkeys(names)]
    own = ec.generate_private_key(ec.SECP256R1())
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    made = (
        _builder("rehone node", certificate.subject, own, min(_NODE, _left(certificate)))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(known), critical=False)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(to / "node.key", _private(own))
    _write(to / "node.crt", _public(made))
    _write(to / "ca.crt", _public(certificate))
    return Certificates(to)


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if not (folder / "ca.key").exists():
        return _new_authority(folder)
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"is no authority that can be read: {error}", where=str(folder)) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise UserError("ca.key and ca.crt do not belong together", where=str(folder), mend="remove both for new ones")
    if _left(certificate) <= timedelta(0):
        mend = "remove ca.key and give every node a new certificate"
        raise UserError("the authority's time is over", where=str(folder / "ca.crt"), mend=mend)
    return certificate, key


def _new_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"rehone authority of {socket.gethostname()}"[:64])])
    made = (
        _builder("", name, key, _AUTHORITY)
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(folder / "ca.key", _private(key))
    _write(folder / "ca.crt", _public(made))
    return made, key


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, good_for: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + good_for)
    )
    return made.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])) if name else made


def _left(certificate: x509.Certificate) -> timedelta:
    return certificate.not_valid_after_utc - datetime.now(UTC)


def _name(text: str) -> x509.GeneralName:
    if _is_address(text):
        return x509.IPAddress(ipaddress.ip_address(text.partition("%")[0]))
    try:
        return x509.DNSName(text)
    except ValueError:
        raise UserError(f"{text!r} is neither a name nor an address of a machine") from None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    """For this user alone, from its first byte on; whole or not at all, since processes that run may read it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(path.name + ".part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    part.replace(path)
