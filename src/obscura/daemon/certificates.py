"""Certificates of tls listeners: the operator's files, looked at before they are used, or one made as Debian makes it."""

from __future__ import annotations

import datetime
import random
import ssl
import warnings
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from obscura.daemon.datadir import write_atomic
from obscura.errors import UserError

_VALID_DAYS = 3_650  # as Debian's make-ssl-cert
_OTHERS, _GROUP_AND_OTHERS = 0o007, 0o077


def server_side(certificate: Path, key: Path) -> tuple[ssl.SSLContext, bytes]:
    """The context of a listener and the SHA256 of its leaf. Raises ``UserError`` that says which file is wrong, and how."""
    chain = _read(certificate, "certificate")
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise UserError(f"the certificate {certificate} cannot be used: it is no PEM file with one ({error})") from None
    _check_key(leaf, certificate, key)
    _check_time(leaf, certificate)
    try:
        return server_context(certificate, key), leaf.fingerprint(hashes.SHA256())
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise UserError(f"the certificate {certificate} with the key {key} cannot be used: {error}") from None


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"the {what} {path} cannot be read: {error.strerror}") from None


def check_private(path: Path, what: str, *, group_may_read: bool) -> None:
    """A secret that others can read is none. Raises ``UserError``."""
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        raise UserError(f"the {what} {path} cannot be read: {error.strerror}") from None
    if mode & (_OTHERS if group_may_read else _GROUP_AND_OTHERS):
        allowed = "640" if group_may_read else "600"
        raise UserError(f"the {what} {path} is open to others (mode {mode:03o}): chmod {allowed} it")


def _check_key(leaf: x509.Certificate, certificate: Path, path: Path) -> None:
    check_private(path, "certificate's key", group_may_read=True)
    try:
        key = serialization.load_pem_private_key(_read(path, "certificate's key"), None)
    except TypeError:
        raise UserError(f"the certificate's key {path} has a passphrase: take it off (openssl pkey -in ...)") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"the certificate's key {path} cannot be used: it is no PEM file with one ({error})") from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise UserError(f"the key {path} is not that of the first certificate in {certificate}")


def _check_time(leaf: x509.Certificate, certificate: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    if leaf.not_valid_after_utc < now:
        raise UserError(
            f"the certificate {certificate} ran out on {leaf.not_valid_after_utc:%Y-%m-%d}: renew it (one that the node "
            "made itself is made anew once the file is deleted)"
        )
    if leaf.not_valid_before_utc > now:
        raise UserError(f"the certificate {certificate} begins on {leaf.not_valid_before_utc:%Y-%m-%d}: see the clock")


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS as nginx on Debian 12 has it: its cipher list, its preference, ALPN for HTTP/1.

    Sessions are kept here, and tickets name them, as with ``ssl_session_tickets off`` and a cache. Tickets that hold the session
    would be shorter than nginx's by a block of AES for most names, since Python calls the context of its sessions by a shorter
    name: an observer of any handshake would see it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1  # OpenSSL refuses it nevertheless, but with another alert
    context.load_cert_chain(certificate, key)
    context.set_ciphers("HIGH:!aNULL:!MD5")
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    context.set_alpn_protocols(["http/1.1", "http/1.0", "http/0.9"])
    context.sni_callback = _any_name
    return context


def _any_name(session: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
    """Every name is served, and OpenSSL says so (an empty server_name in EncryptedExtensions), as nginx does."""


def make_certificate(certificate: Path, key: Path, name: str) -> None:
    """A self-signed certificate of the kind that Debian makes for a new machine, written 0600."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomic(key, pem)
    write_atomic(certificate, made.public_bytes(serialization.Encoding.PEM))


def host_name() -> str:
    """A name for a certificate that nobody looks up, as people name machines."""
    rng = random.SystemRandom()
    kind = rng.choice(("web", "srv", "vps", "host", "node", "www", "app", "mail", "cloud", "box", "server", "vm"))
    return kind + rng.choice(("", "-")) + str(rng.randrange(1, 1000))
