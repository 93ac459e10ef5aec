"""What a collector says of its part in a recording."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CollectorReport:
    """What one collector did: `status` is "ok", "off" or the reason why it could not run, in one line."""

    name: str
    status: str
    cost: str = ""
    clock_error_ns: int = 0
    lost: int = 0

    @property
    def ok(self) -> bool:
        """Whether it ran."""
        return self.status == "ok"
