"""A real DNS-over-HTTPS server on loopback: unbound with a zone of its own, free ports and certificates of an own CA.

    python tools/doh_server.py [ZONEFILE]     (python of the project's .venv; needs unbound: apt install unbound)

serves the records of ZONEFILE (or of standard input), one per line as ``obscura seeds sign`` prints them, until Ctrl-C
or SIGTERM. The first line that it prints is a provider for ``seeds.providers``. Nothing ever leaves the machine: every
other name does not exist. The tests start it as ``with Unbound(...)``.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

START_S = 20.0  # seconds for unbound to listen
_DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority for one run. ``folder/ca.pem`` is what a client has to trust."""

    def __init__(self, folder: Path, name: str = "test CA") -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = _builder(self._name, self._name, self._key, _DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False
        )  # fmt: skip
        built = built.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        self._certificate = built.sign(self._key, hashes.SHA256())
        self.ca.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, expired: bool = False) -> tuple[Path, Path]:
        """Files of a certificate for ``name`` and its key; ``expired`` = since yesterday."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = _builder(subject, self._name, key, -_DAY if expired else _DAY)
        for extension in (
            x509.SubjectAlternativeName([x509.DNSName(name)]),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
        ):
            built = built.add_extension(extension, critical=False)
        stem = f"{name}{'-expired' if expired else ''}"
        certificate, secret = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        signed = built.sign(self._key, hashes.SHA256())
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, secret


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 10 * _DAY)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


_CONFIGURATION = """server:
  verbosity: 1
  log-queries: yes
  use-syslog: no
  logfile: "{folder}/unbound.log"
  pidfile: ""
  username: ""
  chroot: ""
  directory: "{folder}"
  do-daemonize: no
  num-threads: 1
  interface: 127.0.0.1@{port}
  https-port: {port}
  http-endpoint: "/dns-query"
  tls-service-pem: "{certificate}"
  tls-service-key: "{key}"
  access-control: 127.0.0.0/8 allow
  module-config: "iterator"
  local-zone: "." static
  local-data: '. 300 IN SOA localhost. localhost. 1 3600 600 86400 300'
{records}
remote-control:
  control-enable: no
"""


class Unbound:
    """One unbound process; in a ``with`` block it runs, and after it nothing is left of it."""

    def __init__(
        self, folder: Path, records: Iterable[str], authority: Authority, *, name: str = "doh.test",
        certificate: tuple[Path, Path] | None = None,
    ) -> None:  # fmt: skip
        """``records``: lines of a zone file. ``certificate``: files of another one than the authority's for ``name``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name, self.authority = folder, name, authority
        self._records = [line.strip() for line in records if line.strip() and not line.lstrip().startswith(";")]
        self._certificate = certificate or authority.issue(name)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def provider(self) -> str:
        """The server as ``seeds.providers`` takes it."""
        return f"https://{self.name}:{self.port}/dns-query?ip=127.0.0.1&ca={self.authority.ca}"

    @property
    def log(self) -> str:
        """What unbound has said so far, each query included."""
        path = self.folder / "unbound.log"
        return path.read_text() if path.exists() else ""

    def __enter__(self) -> Self:
        program = shutil.which("unbound", path="/usr/sbin:/usr/local/sbin:/sbin:/opt/homebrew/sbin") or shutil.which(
            "unbound"
        )
        if program is None:
            raise FileNotFoundError("unbound is not installed (Debian and Ubuntu: apt install unbound)")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        path = self.folder / "unbound.conf"
        path.write_text(
            _CONFIGURATION.format(
                folder=self.folder,
                port=self.port,
                certificate=self._certificate[0],
                key=self._certificate[1],
                records="\n".join(f"  local-data: '{line}'" for line in self._records),
            )
        )
        self._process = subprocess.Popen(
            [program, "-d", "-c", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._wait()
        return self

    def _wait(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise RuntimeError(f"unbound ended: {self._process.stderr.read().decode().strip()} {self.log}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            except ConnectionRefusedError:
                time.sleep(0.02)
            else:
                return
        self.__exit__()
        raise RuntimeError(f"unbound did not listen within {START_S:.0f} s: {self.log}")

    def __exit__(self, *exc: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stderr is not None:
                process.stderr.close()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="A DNS-over-HTTPS server on loopback, until Ctrl-C.")
    parser.add_argument("zone", nargs="?", type=argparse.FileType(), default=sys.stdin, help="file of records")
    parser.add_argument("--name", default="doh.test", help="name in its certificate")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="doh-server-") as made:
        folder = Path(made)
        try:
            with Unbound(folder, chosen.zone, Authority(folder), name=chosen.name) as server:
                print(server.provider, flush=True)
                signal.pause()
        except KeyboardInterrupt:
            return 0
        except (RuntimeError, FileNotFoundError) as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
