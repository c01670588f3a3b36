"""Certificates that nodes show each other: who is let in, what is written, what is refused."""

from __future__ import annotations

import shutil
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from cluster import show
from cluster.errors import UserError
from cluster.nodes import certificates
from cluster.nodes.certificates import Certificates


def context(of: Certificates | None, trusted: Path) -> ssl.SSLContext:
    """A client's that trusts an authority and shows what it has."""
    made = ssl.create_default_context(cafile=str(trusted / "ca.crt"))
    if of is not None:
        made.load_cert_chain(of.folder / "node.crt", of.folder / "node.key")
    made.set_alpn_protocols(["h2"])  # gRPC hangs up on who does not ask for HTTP/2
    return made


def shakes_hands(server: Certificates, client: ssl.SSLContext, name: str) -> None:
    """Both sides of a handshake, in memory. Raises ssl.SSLError."""
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asking.load_cert_chain(server.folder / "node.crt", server.folder / "node.key")
    asking.load_verify_locations(server.folder / "ca.crt")
    asking.verify_mode = ssl.CERT_REQUIRED
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [asking.wrap_bio(there, back, server_side=True), client.wrap_bio(back, there, server_hostname=name)]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    certificates.of_this_machine(tmp_path / "tls")
    return tmp_path / "tls"


def test_nodes_of_one_authority_let_each_other_in_and_nobody_else(authority: Path, tmp_path: Path) -> None:
    ours = Certificates(authority)
    node = certificates.issue(["worker-2", "10.0.0.2"], tmp_path / "node", authority)
    shakes_hands(ours, context(node, authority), "localhost")
    shakes_hands(ours, context(node, authority), "127.0.0.1")
    shakes_hands(node, context(ours, authority), "10.0.0.2")
    shakes_hands(node, context(ours, authority), "worker-2")
    with pytest.raises(ssl.SSLError, match="peer did not return a certificate"):
        shakes_hands(ours, context(None, authority), "localhost")
    stranger = certificates.issue(["localhost"], tmp_path / "stranger", tmp_path / "other")
    with pytest.raises(ssl.SSLError, match="certificate verify failed"):
        shakes_hands(ours, context(stranger, authority), "localhost")
    with pytest.raises(ssl.SSLError, match="IP address mismatch"):
        shakes_hands(node, context(ours, authority), "10.0.0.3")


def test_files_are_this_users_alone_and_the_authority_is_made_once(authority: Path, tmp_path: Path) -> None:
    assert {path.name for path in authority.iterdir()} == {"ca.crt", "ca.key", "node.crt", "node.key"}
    assert {path.stat().st_mode & 0o777 for path in authority.iterdir()} == {0o600}
    assert authority.stat().st_mode & 0o777 == 0o700
    before = {name: (authority / name).read_bytes() for name in ("ca.key", "node.key")}
    certificates.of_this_machine(authority)
    after = {name: (authority / name).read_bytes() for name in before}
    assert (after["ca.key"], after["node.key"] == before["node.key"]) == (before["ca.key"], False)
    node = certificates.issue(["worker-2"], tmp_path / "node", authority)
    assert {path.name for path in node.folder.iterdir()} == {
        "ca.crt",
        "node.crt",
        "node.key",
    }  # never the authority's key
    assert f"export RAY_TLS_CA_CERT={node.folder / 'ca.crt'}" in show.certificate(node, ["worker-2"])


def test_a_node_never_outlives_its_authority(authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "_AUTHORITY", timedelta(days=3))
    node = certificates.issue(["a"], tmp_path / "node", tmp_path / "short")
    ends = [x509.load_pem_x509_certificate((node.folder / name).read_bytes()) for name in ("node.crt", "ca.crt")]
    assert ends[0].not_valid_after_utc <= ends[1].not_valid_after_utc
    monkeypatch.setattr(certificates, "_AUTHORITY", timedelta(seconds=-1))
    certificates.issue(["a"], tmp_path / "late-node", tmp_path / "late")
    with pytest.raises(UserError, match="the authority's time is over"):
        certificates.issue(["a"], tmp_path / "late-node", tmp_path / "late")


def test_an_authority_that_is_none_and_a_name_that_is_none_are_said(authority: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a name nor an address"):
        certificates.issue(["wörker"], tmp_path / "node", authority)
    other = tmp_path / "other"
    certificates.issue(["a"], other, other)
    shutil.copy(other / "ca.key", authority / "ca.key")
    with pytest.raises(UserError, match="do not belong together"):
        certificates.issue(["a"], tmp_path / "node", authority)
    (authority / "ca.key").write_text("no key")
    with pytest.raises(UserError, match="is no authority that can be read"):
        certificates.issue(["a"], tmp_path / "node", authority)
