"""Deterministic fault simulation: whole networks of the shipped core under seeded faults, and what must hold at every step.

``run.run(seed)`` builds a network, draws a plan of faults, lets it happen and then ends the faults; ``rules`` says what was
broken. The same seed gives the same network, faults and trace, bit for bit.
"""
