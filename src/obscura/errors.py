"""The kinds of fault, named by who is at fault and what follows.

Faults of a peer that the link survives are *values* (``obscura.wire.frame.Malformed``); the exceptions here are for what
ends something: a link (``Violation``, ``ChannelFault``) or a command of the user (``UserError`` and its children).
"""

from __future__ import annotations


class ObscuraError(Exception):
    """Base of every exception that this package raises on purpose."""


class Violation(ObscuraError):
    """The peer broke the protocol: the link ends at once (specification, Error Handling 1).

    As the last item of a decoder it is also used as a value, so that the frames before it are not lost.
    """


class DecodeError(ObscuraError):
    """Bytes that do not follow their encoding. The frame decoder turns it into a ``Malformed`` value."""


class ChannelFault(ObscuraError):
    """Anything wrong below authentication: tag, counter, size, end mark, time. Its text never leaves the process."""


class ExtensionFault(TypeError):
    """What an application registered or returned cannot be. Its text names classes alone, nothing of a peer's: it is logged."""


class UserError(ObscuraError):
    """The person at the keyboard can mend this. ``str(error)`` is one clear sentence that says what to do."""


class ConfigError(UserError):
    """A configuration file, environment variable or flag is wrong."""


class AddressError(UserError):
    """A text is not an ``obscura://`` address or host and port."""


class Unreachable(UserError):
    """A peer or a daemon could not be reached, or did not prove its key."""


class Refused(ObscuraError):
    """The peer followed the protocol but is not wanted (feature missing, too old): the link ends, nobody is at fault."""
