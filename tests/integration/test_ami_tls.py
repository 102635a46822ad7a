"""TLS to the manager interface: verified, and said plainly when it is not what it should be."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from ami_clients import running, until
from ami_peer import Peer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fastagi.ami import actions
from fastagi.ami.tls import trusting
from fastagi.errors import ConfigError
from fastagi.settings import Settings


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate of 127.0.0.1 in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pbx")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path_factory.mktemp("tls") / "pbx.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_over_tls(certificate: Path, server_side: ssl.SSLContext) -> None:
    peer = Peer()
    await peer.listen(server_side)
    got: list[str] = []
    async with running(peer.port, tls=trusting(certificate), events=("UserEvent",)) as ami:
        ami.subscribe(lambda e: got.append(e["K"]))
        await actions.user_event(ami, "Foo", {"K": "ü" * 400})
        await until(lambda: got == ["ü" * 400])
        peer.drop()
        await until(lambda: ami.reconnects == 1 and ami.connected)
    await peer.vanish()


async def test_an_unknown_certificate_is_refused(server_side: ssl.SSLContext) -> None:
    peer = Peer()
    await peer.listen(server_side)
    async with running(peer.port, up=False, tls=True) as ami:
        await until(lambda: ami.last_error)
        assert "is not trusted: self" in ami.last_error
        assert ami.last_error.endswith("set tls_ca_file to it, or to who signed it")
        assert not ami.connected
    assert not peer.actions  # the secret never left
    await peer.vanish()


async def test_a_certificate_of_another_name_is_refused(certificate: Path, server_side: ssl.SSLContext) -> None:
    peer = Peer()
    await peer.listen(server_side)
    async with running(peer.port, up=False, host="localhost", tls=trusting(certificate)) as ami:
        await until(lambda: ami.last_error)
        assert "its certificate is for another name" in ami.last_error
    assert not peer.actions
    await peer.vanish()


async def test_a_port_without_tls_is_named(certificate: Path) -> None:
    peer = Peer()
    await peer.listen()
    async with running(peer.port, up=False, tls=trusting(certificate)) as ami:
        await until(lambda: ami.last_error)
        assert "does not speak TLS on that port" in ami.last_error
    await peer.vanish()


def test_a_file_without_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.pem: No such file"):
        trusting(tmp_path / "nothing.pem")
    (tmp_path / "key.pem").write_text("a key")
    with pytest.raises(ConfigError, match=r"key\.pem: holds no certificate"):
        trusting(tmp_path / "key.pem")


def test_authorities_are_for_tls_alone() -> None:
    with pytest.raises(ValueError, match="tls_ca_file means nothing without tls = true"):
        Settings.model_validate({"asterisk": [{"secret": "x", "tls_ca_file": "/pbx.pem"}]})
