"""What nfstream says of every TCP flow of a capture, as JSON lines: label, confidence, and the risks that its nDPI noted.

    python -m obscura.lab.field.dissect FILE

nfstream shows no risks of its own accord; they stand in the structure of its nDPI and are read from there while the flow lives.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from _lib_engine import ffi, lib
from nfstream import NFPlugin, NFStreamer

_BY_DPI = 6  # application_confidence
_TCP = 6
_RISK_NAMES = {
    number: name.removeprefix("NDPI_")
    for number, name in ffi.typeof("ndpi_risk_enum").elements.items()
    if name != "NDPI_NO_RISK"
}


class Risks(NFPlugin):  # type: ignore[misc]
    """``flow.udps.risks``: the bits of ``ndpi_risk``, as long as there is a structure to read them from."""

    def on_init(self, packet: Any, flow: Any) -> None:
        flow.udps.risks = 0
        self.on_update(packet, flow)

    def on_update(self, packet: Any, flow: Any) -> None:
        inside = flow._C.ndpi_flow
        if inside != ffi.NULL:
            flow.udps.risks = int(inside.risk)

    def on_expire(self, flow: Any) -> None:
        inside = flow._C.ndpi_flow if getattr(flow, "_C", None) else ffi.NULL
        if inside != ffi.NULL:
            flow.udps.risks = int(inside.risk)


def main() -> None:
    """Print one line per flow."""
    streamer = NFStreamer(source=sys.argv[1], n_dissections=20, udps=Risks(), n_meters=1)
    for flow in streamer:
        if flow.protocol != _TCP:
            continue
        risks = [name for number, name in _RISK_NAMES.items() if flow.udps.risks >> number & 1]
        by_dpi = flow.application_confidence == _BY_DPI and not flow.application_is_guessed
        sys.stdout.write(json.dumps([flow.dst_ip, flow.application_name, by_dpi, sorted(risks)]) + "\n")
    version = ffi.string(lib.engine_lib_ndpi_version()).decode()
    sys.stdout.write(json.dumps({"ndpi": version}) + "\n")


if __name__ == "__main__":
    main()
