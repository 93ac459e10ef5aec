"""Where totals go: one file an export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from giltrace.metrics.totals import Totals


class Export(Protocol):
    """Something that is told the totals again and again, at the end once more, and is then closed.

    What is wrong with it is found out when it is made: nothing has been started then.
    """

    def begin(self, totals: Callable[[], Totals], first: Totals) -> None:
        """Begin, with what there was `first`; the newest `totals` may be asked for at any time, in any thread."""

    def tell(self, totals: Totals) -> None:
        """Take what there is now."""

    def close(self) -> None:
        """Be done within seconds, also where the other side does not answer."""
