"""An own tor, started and ended with the node (``tor = "managed"``)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from obscura.daemon.datadir import make_private
from obscura.limits import TOR_START_S, TOR_STOP_S
from obscura.transport.tor import TorFault
from obscura.transport.tor_words import endpoint_of, quoted
from obscura.wire.address import Endpoint

_LOOK_S = 0.05


class TorProcess:
    """One tor with its data below ``folder``. It listens on loopback only, on ports of its own choice."""

    def __init__(self, folder: Path, program: str, torrc: Path | None) -> None:
        self._folder = folder
        self._program = program
        self._torrc = torrc
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self.is_running and self._process is not None else None

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def control_port(self) -> Endpoint | None:
        """Where it listens for control, while it runs and has said so."""
        return _control_port(self._folder / "control-port") if self.is_running else None

    async def start(self) -> Endpoint:
        """Start it unless it runs; its control port. Raises ``TorFault``."""
        told = self._folder / "control-port"
        if not self.is_running:
            try:
                log = self._prepare(told)
            except OSError as error:
                why = (error.strerror or "fault").lower()
                raise TorFault(f"the own tor's directory {self._folder} cannot be written: {why}") from None
            with log:
                self._process = await self._run(log)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TOR_START_S):
                while self.is_running:
                    found = _control_port(told)
                    if found is not None:
                        return found
                    await asyncio.sleep(_LOOK_S)
        await self.end()
        raise TorFault(f"the own tor did not start: {self._last_words()}")

    def _prepare(self, told: Path) -> BinaryIO:
        """Its settings, and the file for what it says. Raises ``OSError``."""
        make_private(self._folder)
        told.unlink(missing_ok=True)
        (self._folder / "torrc").write_text(self._settings(told))
        return (self._folder / "tor.log").open("wb")

    async def _run(self, log: BinaryIO) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *(self._program, "-f", str(self._folder / "torrc"), "--defaults-torrc", os.devnull),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        except FileNotFoundError:
            raise TorFault(
                f"there is no program {self._program!r} to start: apt install tor, or set tor-daemon.program"
            ) from None
        except OSError as error:
            why = (error.strerror or "fault").lower()
            raise TorFault(f"the program {self._program!r} cannot be started: {why}") from None

    async def end(self) -> None:
        """End it, by its process id. It is gone when this returns."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(TOR_STOP_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _settings(self, control_port: Path) -> str:
        lines = [
            f"DataDirectory {quoted(str(self._folder / 'data'))}",
            "ClientOnly 1",
            "SocksPort auto ExtendedErrors",
            "ControlPort auto",
            f"ControlPortWriteToFile {quoted(str(control_port))}",
            "CookieAuthentication 1",
            "AvoidDiskWrites 1",
            f"__OwningControllerProcess {os.getpid()}",  # it ends by itself if the node is killed
        ]
        if self._torrc is not None:
            lines.insert(0, f"%include {quoted(str(self._torrc))}")
        return "\n".join(lines) + "\n"

    def _last_words(self) -> str:
        try:
            lines = (self._folder / "tor.log").read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        told = [line.partition("] ")[2] for line in lines if "[err]" in line or "[warn]" in line]
        return told[-1] if told else "it says nothing of why"


def _control_port(file: Path) -> Endpoint | None:
    """What tor wrote: ``PORT=127.0.0.1:41234``."""
    try:
        return endpoint_of(file.read_text().partition("PORT=")[2].strip())
    except OSError:
        return None
