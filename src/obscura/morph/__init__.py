"""Carriers, the outermost layer of a link (specification, Protocol Morphing)."""
