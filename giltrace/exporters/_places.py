"""Where holders and waiters stood, as texts: the innermost frame that stands for each hold and wait."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from giltrace.analysis.measure.sites import Sites
from giltrace.exporters._relations import Relations
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process


@dataclass(frozen=True)
class Places:
    """`texts` has each place as ``function (file:line)``, the first is empty: unknown.

    The others are numbers of texts: per hold (`hold`), per wait for the waiter (`wait`) and for the hold that it
    lost most to (`culprit`), per switch request for the holder asked (`asked`).
    """

    texts: tuple[str, ...]
    hold: Ints
    wait: Ints
    culprit: Ints
    asked: Ints


def find_places(process: Process, relations: Relations) -> Places:
    """Find the places of one process."""
    sites = Sites(process)
    hold, frames = sites.innermost(sites.hold_stacks())
    wait, _ = sites.innermost(sites.wait_stacks())
    texts = ("", *(f"{function} ({file}:{line})" for function, file, line in frames))
    of_hold = np.append(hold, -1) + 1
    return Places(texts, of_hold[:-1], wait + 1, of_hold[relations.culprit_hold], of_hold[relations.asked_hold])
