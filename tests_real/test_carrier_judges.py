"""Carriers before tshark, nDPI, nfstream and Suricata, and before a prober: the reduced form of `lab morph` and tools/probes.py.

apt install tshark libndpi-bin iproute2 util-linux nginx-light curl openssh-server openssh-client; Suricata from backports counts
where it is there, else it is said that it did not run. Fails without the others: nothing is passed by.
"""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
from pathlib import Path

import pytest

import probes
from obscura.errors import UserError
from obscura.lab.encrypted import exemption
from obscura.lab.field import judges
from obscura.lab.field.covers import COVERS
from obscura.lab.field.morph import run

FLOWS = 4
PROBES = 250


@pytest.mark.parametrize("carrier", COVERS)
def test_no_judge_tells_sessions_from_genuine_ones(carrier: str, tmp_path: Path) -> None:
    card = run(carrier, FLOWS, ["none"], tmp_path, 1, lambda text: None)
    assert card.faults == []
    (level,) = card.levels
    assert level.ours.ndpi.flows == level.ours.connections >= FLOWS  # as many judged as made
    assert level.genuine.ndpi.flows >= 2 * FLOWS
    kept = tmp_path / f"{carrier}-none.pcapng"
    assert kept.stat().st_size > 10_000
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


@pytest.mark.parametrize("carrier", COVERS)
def test_no_probe_is_accepted_or_tells_the_listener_from_the_real_server(carrier: str) -> None:
    found = asyncio.run(probes.run(carrier, PROBES, joining=False, seed=os.getpid(), with_waits=False))
    assert found["probes"] == PROBES
    assert found["accepted"] == 0
    assert found["apart"] == []


def test_the_judges_see_random_bytes_for_what_they_are(tmp_path: Path) -> None:
    """The same tools on a session of ``plain``: what they cannot see there would prove nothing elsewhere."""
    program = (
        "import os, socket, threading\n"
        "server = socket.create_server(('192.0.2.20', 443))\n"
        "def serve():\n"
        "    far, _ = server.accept()\n"
        "    for _ in range(20): far.recv(2000); far.sendall(os.urandom(900))\n"
        "thread = threading.Thread(target=serve); thread.start()\n"
        "near = socket.create_connection(('192.0.2.20', 443))\n"
        "for _ in range(20): near.sendall(b'\\xd2' + os.urandom(600)); near.recv(2000)\n"
        "near.close(); thread.join()\n"
    )
    stage = (
        "from pathlib import Path\n"
        "from obscura.lab.field.place import captured, prepare\n"
        f"prepare()\nwith captured(Path({str(tmp_path / 'flows.pcapng')!r})):\n"
        f"    exec({program!r})\n"
    )
    command = ["unshare", "-n", *([] if os.geteuid() == 0 else ["-r"]), judges.PYTHON, "-c", stage]
    subprocess.run(command, check=True, timeout=60)
    capture = tmp_path / "flows.pcapng"
    assert [(label.protocol, label.by_dpi) for label in judges.ndpi(capture)] == [("TLS", False)]  # by its port alone
    (newer,), _ = judges.nfstream(capture)
    assert "SUSPICIOUS_ENTROPY" in newer.risks
    ((_, first),) = judges.firsts_of(capture, 443)
    assert exemption(first) is None
    seen = judges.suricata(capture, tmp_path / "suricata")
    assert seen is None or [one.to_server for one in seen[0]] == ["failed"]


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "found", lambda program: None)
    with pytest.raises(UserError, match=r"apt install curl iproute2 libndpi-bin nginx-light tshark"):
        judges.check_tools("http")
