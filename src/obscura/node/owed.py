"""What one peer was asked for and has not answered: each question has its answer, however late, and no other one is due."""

from __future__ import annotations


class Owed:
    """Ids that are waited for, and ids whose answers may still come."""

    __slots__ = ("in_flight", "late")

    def __init__(self) -> None:
        self.in_flight: dict[bytes, None] = {}
        self.late: dict[bytes, int] = {}  # answers that may still come, beside the one in flight

    @property
    def owed(self) -> int:
        """Ids of which answers are to come."""
        return len(self.in_flight) + len(self.late)

    def expect_no_more(self, id: bytes) -> None:
        """It was asked for, and is not waited for any longer: it may come all the same."""
        if self.in_flight.pop(id, b"") is None:
            self.add_late(id)

    def add_late(self, id: bytes) -> None:
        """One answer more that may still come."""
        self.late[id] = self.late.get(id, 0) + 1

    def answers(self, id: bytes) -> bool:
        """One answer of as many as it was asked for. Whether there was any left: who is slow was perhaps asked again."""
        if self.in_flight.pop(id, b"") is None:
            return True
        owed = self.late.pop(id, 0)
        if owed > 1:
            self.late[id] = owed - 1
        return owed > 0
