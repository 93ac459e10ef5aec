"""Where totals go: one file an export, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Kind:
    """One export: the `option` of `giltrace metrics` that asks for it, and its class as ``module:class``."""

    option: str
    home: str


#: A new export is one file in this package and one line here.
KINDS: tuple[Kind, ...] = (
    Kind("--listen", "giltrace.metrics.export.listen:Listen"),
    Kind("--otlp", "giltrace.metrics.export.otlp:Otlp"),
    Kind("--json", "giltrace.metrics.export.json_lines:JsonLines"),
    Kind("", "giltrace.metrics.export.table:Table"),
)
