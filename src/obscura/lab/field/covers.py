"""The real implementations: their servers on the usual ports, one session of their clients. One row per carrier."""

from __future__ import annotations

import base64
import os
import random
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from obscura.daemon.certificates import make_certificate
from obscura.errors import UserError
from obscura.lab.field.place import COVER, Processes
from obscura.lab.load import errand, site_files, visit, zone_lookups, zone_text

NAME = "shop.example"
_SESSION_S = 60


class Cover(ABC):
    """One real server and client. ``packages``: program -> Debian package."""

    PORT: ClassVar[int]
    LABEL: ClassVar[str]  # of nDPI
    APP: ClassVar[str]  # of Suricata
    PACKAGES: ClassVar[dict[str, str]]

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder = folder
        self._processes = processes

    @abstractmethod
    def start(self, rng: random.Random) -> list[str]:
        """Make files, start the server on ``COVER``; words for our own node that make its cover the same."""

    @abstractmethod
    def session(self, host: str, rng: random.Random, keylog: Path) -> None:
        """One session of the genuine client. Raises ``subprocess.SubprocessError``."""

    def listening(self, rng: random.Random) -> str:
        """What stands in our own address beside host, port and carrier."""
        return ""

    def _until_up(self) -> None:
        for _ in range(100):
            try:
                socket.create_connection((COVER, self.PORT), 1).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise UserError(f"the genuine server does not answer on port {self.PORT}; logs are in {self.folder}")


_NGINX = """daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log crit;
events {{ worker_connections 768; }}
http {{
  sendfile on; tcp_nopush on; types_hash_max_size 2048; include /etc/nginx/mime.types; default_type application/octet-stream;
  ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3; ssl_prefer_server_ciphers on; access_log off; gzip on;
  ssl_session_cache shared:sessions:1m; ssl_session_tickets off; ssl_session_timeout 2h;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen {listen}; {certificate} root {folder}/site; index index.html; server_name _;
    location / {{ try_files $uri $uri/ =404; }} }}
}}
"""


class Web(Cover):
    """nginx and curl."""

    PORT = 80
    LABEL = "HTTP"
    APP = "http"
    PACKAGES = {"nginx": "nginx-light", "curl": "curl"}
    SCHEME = "http"

    def start(self, rng: random.Random) -> list[str]:
        self._files = []
        for name, body in site_files(rng).items():
            path = self.folder / "site" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
            self._files.append(name)
        words = ["--set", f"cover.site={self.folder / 'site'}"]
        certificate, more = self._certificate()
        configuration = self.folder / "nginx.conf"
        listen = f"{COVER}:{self.PORT}" + (" ssl" if certificate else "")
        configuration.write_text(_NGINX.format(folder=self.folder, listen=listen, certificate=certificate))
        self.folder.chmod(0o755)
        self._processes.start(
            ["nginx", "-p", str(self.folder), "-c", str(configuration)], log=self.folder / "nginx.err"
        )
        self._until_up()
        return words + more

    def _certificate(self) -> tuple[str, list[str]]:
        return "", []

    def listening(self, rng: random.Random) -> str:
        return f"&name={NAME}"

    def session(self, host: str, rng: random.Random, keylog: Path) -> None:
        wanted = visit(rng, self._files)
        command = ["curl", "-sSk", "--compressed", "--http1.1", "--resolve", f"{NAME}:{self.PORT}:{host}"]
        if wanted.per_minute:
            command += ["--rate", f"{wanted.per_minute}/m"]
        for path in wanted.paths:
            command += ["-o", "/dev/null", f"{self.SCHEME}://{NAME}/{path}"]
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            timeout=_SESSION_S,
            env={**os.environ, "SSLKEYLOGFILE": str(keylog)},
        )


class SecureWeb(Web):
    """nginx and curl over TLS; our listener shows the same certificate."""

    PORT = 443
    LABEL = "TLS"
    APP = "tls"
    SCHEME = "https"

    def _certificate(self) -> tuple[str, list[str]]:
        certificate, key = self.folder / "site.crt", self.folder / "site.key"
        make_certificate(certificate, key, NAME)
        words = ["--set", f"cover.certificate={certificate}", "--set", f"cover.key={key}"]
        return f"ssl_certificate {certificate}; ssl_certificate_key {key};", words


class SecureShell(Cover):
    """sshd and OpenSSH's client with a key that the server knows."""

    PORT = 22
    LABEL = "SSH"
    APP = "ssh"
    PACKAGES = {"sshd": "openssh-server", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}

    def start(self, rng: random.Random) -> list[str]:
        if os.geteuid():
            raise UserError("sshd logs nobody in inside a user namespace of one user: carrier ssh needs root")
        Path("/run/sshd").mkdir(exist_ok=True)
        for name, kind in (("host_rsa", "rsa"), ("host_ecdsa", "ecdsa"), ("host_ed25519", "ed25519"), ("user", "rsa")):
            command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(self.folder / name)]
            subprocess.run(command, check=True, capture_output=True)
        authorized = self.folder / "authorized"
        authorized.write_bytes((self.folder / "user.pub").read_bytes())
        authorized.chmod(0o600)
        lines = [f"Port {self.PORT}", f"ListenAddress {COVER}", "PidFile none", "UsePAM no", "StrictModes no"]
        lines += ["MaxStartups 200", "PermitRootLogin prohibit-password", f"AuthorizedKeysFile {authorized}"]
        lines += [f"HostKey {self.folder / f'host_{kind}'}" for kind in ("rsa", "ecdsa", "ed25519")]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")
        self._processes.start(
            ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd_config")], log=self.folder / "sshd.log"
        )
        self._until_up()
        return []

    def session(self, host: str, rng: random.Random, keylog: Path) -> None:
        wanted = errand(rng)
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR"]
        command = ["ssh", "-F", "none", "-i", str(self.folder / "user")]
        command += [part for option in options for part in ("-o", option)]
        command += [f"root@{host}", wanted.command]
        subprocess.run(command, input=rng.randbytes(wanted.stdin), check=True, capture_output=True, timeout=_SESSION_S)


_NAMED = """options {{ directory "{folder}"; listen-on port 53 {{ {host}; }}; listen-on-v6 {{ none; }}; pid-file none;
  session-keyfile "{folder}/session.key"; managed-keys-directory "{folder}"; key-directory "{folder}"; recursion no;
  dnssec-validation no; notify no; allow-new-zones no; }};
controls {{ }};
key "{key}" {{ algorithm hmac-sha256; secret "{secret}"; }};
zone "{zone}" {{ type primary; file "{folder}/zone"; dnssec-policy default;
  allow-transfer {{ key "{key}"; }}; allow-update {{ key "{key}"; }}; }};
"""


class NameServer(Cover):
    """named with a signed zone; dig and nsupdate over TCP, with the secret where a transfer or an update needs it."""

    PORT = 53
    LABEL = "DNS"
    APP = "dns"
    PACKAGES = {"named": "bind9", "dig": "bind9-dnsutils", "nsupdate": "bind9-dnsutils"}
    ZONE = "shop.example"
    KEY = "transfer"

    def start(self, rng: random.Random) -> list[str]:
        self._secret = base64.b64encode(rng.randbytes(32)).decode()
        (self.folder / "zone").write_text(zone_text(self.ZONE, rng))
        configuration = self.folder / "named.conf"
        configuration.write_text(
            _NAMED.format(folder=self.folder, host=COVER, key=self.KEY, secret=self._secret, zone=self.ZONE)
        )
        self.folder.chmod(0o755)
        self._processes.start(["named", "-f", "-n", "1", "-c", str(configuration)], log=self.folder / "named.log")
        self._until_up()
        return []

    def session(self, host: str, rng: random.Random, keylog: Path) -> None:
        lookups = zone_lookups(self.ZONE, rng)
        secret = f"hmac-sha256:{self.KEY}:{self._secret}"
        match rng.choice(("questions", "transfer", "update")):
            case "questions":
                words = [word for name, kind in lookups for word in (name, kind)]
                self._said("dig", "+tcp", "+keepopen", "+dnssec", f"@{host}", *words)
            case "transfer":
                self._said("dig", "+tcp", "+keepopen", "-y", secret, f"@{host}", self.ZONE, "SOA", self.ZONE, "AXFR")
            case _:
                lines = [f"server {host}", f"zone {self.ZONE}"]
                for name, _ in lookups:
                    lines += [
                        f"update add new-{rng.randrange(10_000)}.{name} 300 TXT {'x' * rng.randint(10, 200)}",
                        "send",
                    ]
                self._said("nsupdate", "-v", "-y", secret, said="\n".join(lines) + "\n")

    @staticmethod
    def _said(*command: str, said: str = "") -> None:
        subprocess.run(command, input=said, text=True, check=True, capture_output=True, timeout=_SESSION_S)


COVERS: dict[str, type[Cover]] = {"http": Web, "tls": SecureWeb, "ssh": SecureShell, "dns": NameServer}
