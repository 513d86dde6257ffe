"""The tools that judge a capture, run one after the other at low priority; ``verdicts`` reads what they print."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from obscura.errors import UserError
from obscura.lab.field.covers import COVERS
from obscura.lab.field.place import PYTHON, SYSTEM_FOLDERS
from obscura.lab.flows import Flow, read_flows
from obscura.lab.verdicts import TSHARK_FIELDS, Dissected, Label, Seen, read_ja4, read_ndpi, read_suricata, read_tshark

_TOOL_S = 900
NEEDED = {
    "tshark": "tshark",
    "dumpcap": "wireshark-common",
    "ndpiReader": "libndpi-bin",
    "ip": "iproute2",
    "unshare": "util-linux",
}
MODULES = {"nfstream": "nfstream", "sklearn": "scikit-learn", "numpy": "numpy"}
RULES = Path("/etc/suricata/rules")

_SURICATA = """%YAML 1.1
---
default-log-dir: {folder}
classification-file: /etc/suricata/classification.config
reference-config-file: /etc/suricata/reference.config
outputs:
  - eve-log:
      enabled: yes
      filetype: regular
      filename: eve.json
      types:
        - alert
        - anomaly: {{ enabled: yes, types: {{ decode: yes, stream: yes, applayer: yes }} }}
        - tls: {{ extended: yes, ja4: on }}
        - ssh
        - flow
app-layer:
  protocols:
    tls: {{ enabled: yes, detection-ports: {{ dp: 443 }}, ja3-fingerprints: yes, ja4-fingerprints: yes }}
    ssh: {{ enabled: yes, hassh: yes }}
    http: {{ enabled: yes }}
    dns: {{ tcp: {{ enabled: yes, detection-ports: {{ dp: 53 }} }}, udp: {{ enabled: yes, detection-ports: {{ dp: 53 }} }} }}
stream: {{ memcap: 128mb, reassembly: {{ memcap: 256mb, depth: 0 }} }}
"""


def check_tools(carrier: str) -> None:
    """Raises ``UserError`` that names every missing program and module with the package that has it."""
    programs = {**NEEDED, **COVERS[carrier].PACKAGES}
    missing = {package for program, package in programs.items() if found(program) is None}
    modules = {package for module, package in MODULES.items() if importlib.util.find_spec(module) is None}
    words = []
    if missing:
        words.append(f"apt install {' '.join(sorted(missing))}")
    if modules:
        words.append(f"pip install {' '.join(sorted(modules))}")
    if words:
        raise UserError(f"tools are missing for the carrier {carrier}: {'; '.join(words)}")


def found(program: str) -> str | None:
    """Where a program is, in the system's folders too."""
    return shutil.which(program) or shutil.which(program, path=SYSTEM_FOLDERS)


def versions() -> dict[str, str]:
    """What each tool calls itself; "not run" for Suricata where it is not installed."""
    said = {
        "tshark": _output("tshark", "--version"),
        "ndpi": _output("ndpiReader", "-v", "1", "-i", os.devnull),
        "suricata": _output("suricata", "-V") if found("suricata") else "",
        "curl": _output("curl", "--version"),
        "nginx": _output("nginx", "-v"),
        "ssh": _output("ssh", "-V"),
    }
    patterns = {"ndpi": r"Using nDPI \(([^)]*)\)", "ssh": r"OpenSSH_(\S+)"}
    shown = {}
    for name, text in said.items():
        match = re.search(patterns.get(name, r"(\d+\.\d+[.\w]*)"), text)
        shown[name] = match[1].rstrip(",") if match else "not run" if name == "suricata" else "?"
    return shown


def _output(program: str, *arguments: str) -> str:
    place = found(program)
    if place is None:
        return ""
    done = subprocess.run([place, *arguments], capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr


def _run(*command: str) -> str:
    done = subprocess.run(["nice", *command], capture_output=True, text=True, timeout=_TOOL_S)
    if done.returncode:
        raise UserError(f"{command[0]} ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def _rows(capture: Path, fields: Iterable[str], *options: str) -> list[list[str]]:
    chosen = [part for name in fields for part in ("-e", name)]
    text = _run("tshark", "-r", str(capture), *options, "-T", "fields", *chosen)
    return [line.split("\t") for line in text.splitlines()]


def flows_of(capture: Path) -> list[Flow]:
    """Every TCP flow's sizes and times."""
    fields = ("tcp.stream", "frame.time_epoch", "ip.dst", "tcp.srcport", "tcp.dstport", "tcp.len")
    return read_flows(_rows(capture, fields, "-Y", "tcp"))


def firsts_of(capture: Path, port: int) -> list[tuple[str, bytes]]:
    """The first payload from each client, with the server's address."""
    rows = _rows(capture, ("ip.dst", "tcp.payload"), "-Y", f"tcp.seq == 1 && tcp.len > 0 && tcp.dstport == {port}")
    return [(server, bytes.fromhex(payload.replace(":", ""))) for server, payload in rows]


def ndpi(capture: Path) -> list[Label]:
    """nDPI of the distribution."""
    return read_ndpi(_run("ndpiReader", "-v", "2", "-i", str(capture)))


def nfstream(capture: Path) -> tuple[list[Label], str]:
    """The newer nDPI inside nfstream, and its version."""
    labels, version = [], "?"
    for line in _run(PYTHON, "-m", "obscura.lab.field.dissect", str(capture)).splitlines():
        told = json.loads(line)
        if isinstance(told, dict):
            version = told["ndpi"]
        else:
            server, name, by_dpi, risks = told
            labels.append(Label(server, name, by_dpi, tuple(risks)))
    return labels, version


def suricata(capture: Path, folder: Path) -> tuple[list[Seen], dict[str, dict[str, int]]] | None:
    """Flows and JA4 by server; ``None`` where there is no Suricata. All of its ``*-events.rules`` are loaded."""
    if found("suricata") is None or not RULES.is_dir():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    # Checksums are not computed on loopback, so that a rule about them says nothing.
    kept = [
        line
        for file in sorted(RULES.glob("*-events.rules"))
        for line in file.read_text().splitlines()
        if line.startswith("alert") and "checksum" not in line
    ]
    (folder / "eve.json").unlink(missing_ok=True)  # it would be added to
    (folder / "events.rules").write_text("\n".join(kept) + "\n")
    (folder / "suricata.yaml").write_text(_SURICATA.format(folder=folder))
    _run(
        "suricata", "-c", str(folder / "suricata.yaml"), "-r", str(capture), "-k", "none", "-l", str(folder), "-S",
        str(folder / "events.rules"),
    )  # fmt: skip
    lines = (folder / "eve.json").read_bytes().splitlines()
    return read_suricata(lines), {server: dict(counts) for server, counts in read_ja4(lines).items()}


def tshark(capture: Path, keylog: Path) -> dict[str, Dissected]:
    """Pairing, sequences, decryption, expert's words ; by server."""
    keys = ["-o", f"tls.keylog_file:{keylog}"] if keylog.exists() else []
    return read_tshark(_rows(capture, TSHARK_FIELDS, "-Y", "tcp", "-o", "tcp.reassemble_out_of_order:TRUE", *keys))
