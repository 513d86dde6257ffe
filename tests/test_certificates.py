"""The operator's certificate and host keys: each way in which files can be wrong stops the start and names the file."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from obscura.daemon.certificates import make_certificate, server_side
from obscura.daemon.ssh_cover import make_host_key, read_host_key
from obscura.errors import UserError


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    certificate, key = tmp_path / "site.crt", tmp_path / "site.key"
    make_certificate(certificate, key, "shop.example")
    return certificate, key


def dated(certificate: Path, key: Path, first: int, last: int) -> None:
    """A certificate of these days from now."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(5)
        .not_valid_before(now + datetime.timedelta(days=first))
        .not_valid_after(now + datetime.timedelta(days=last))
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def lock(certificate: Path, key: Path) -> None:
    private = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))


def test_good_files_are_taken_and_the_leaf_is_the_first(files: tuple[Path, Path]) -> None:
    certificate, key = files
    own = x509.load_pem_x509_certificate(certificate.read_bytes()).fingerprint(hashes.SHA256())
    assert server_side(certificate, key)[1] == own
    other = certificate.with_name("ca.crt")
    make_certificate(other, certificate.with_name("ca.key"), "ca.example")
    certificate.write_bytes(certificate.read_bytes() + other.read_bytes())
    key.chmod(0o640)  # as Debian's group ssl-cert has it
    assert server_side(certificate, key)[1] == own


WRONG: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "no certificate": (lambda crt, key: crt.unlink(), r"site\.crt cannot be read: No such file"),
    "no key": (lambda crt, key: key.unlink(), r"site\.key cannot be read: No such file"),
    "a folder": (lambda crt, key: (crt.unlink(), crt.mkdir()), r"site\.crt cannot be read: Is a directory"),
    "rubbish": (lambda crt, key: crt.write_bytes(b"hello"), r"site\.crt cannot be used: it is no PEM"),
    "rubbish in the key": (lambda crt, key: key.write_bytes(b"hello"), r"site\.key cannot be used: it is no PEM"),
    "the files exchanged": (
        lambda crt, key: crt.write_bytes(key.read_bytes()),
        r"site\.crt cannot be used: it is no PEM",
    ),
    "a passphrase": (lock, r"site\.key has a passphrase"),
    "another's key": (
        lambda crt, key: make_certificate(crt, key.with_name("other"), "x"),
        r"site\.key is not that of the first certificate in .*site\.crt",
    ),
    "run out": (lambda crt, key: dated(crt, key, -20, -2), r"site\.crt ran out on 20"),
    "not yet": (lambda crt, key: dated(crt, key, 2, 20), r"site\.crt begins on 20.*clock"),
    "open to others": (lambda crt, key: key.chmod(0o644), r"site\.key is open to others \(mode 644\): chmod 640"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_certificate_is_said(files: tuple[Path, Path], case: str) -> None:
    spoil, said = WRONG[case]
    spoil(*files)
    with pytest.raises(UserError, match=said):
        server_side(*files)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o666])
def test_a_host_key_that_others_can_read_is_refused_as_sshd_refuses_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "host"
    make_host_key(path, "ed25519")
    assert read_host_key(path).algorithms
    os.chmod(path, mode)
    with pytest.raises(UserError, match=r"host is open to others .*chmod 600"):
        read_host_key(path)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), (b"", "cannot be used"), (b"x" * 99, "cannot be used")]
)
def test_a_host_key_that_is_none_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "host"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(UserError, match=f"host {said}"):
        read_host_key(path)
