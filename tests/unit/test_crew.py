"""Collectors that fail: each loses its own data, and says why in words that its reader can use."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from giltrace.collectors.base import Collector
from giltrace.errors import TargetError
from giltrace.launch.recorder import Crew
from giltrace.recording.collected import CollectorReport


class Failing:
    """A collector that ends with an error."""

    name = "failing"

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def available(self, python: str | None) -> None:
        return None

    def stop(self) -> CollectorReport:
        if self.error is not None:
            raise self.error
        np.concatenate([])
        raise AssertionError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "failed: [Errno 28] No space left on device"),
        (TargetError("it has gone"), "failed: it has gone"),
        (None, "failed: a fault in giltrace (ValueError at recorder.py:"),
    ],
)
def test_why_a_collector_failed(error: Exception | None, told: str) -> None:
    crew = Crew([cast("Collector", Failing(error))], None)
    crew.stop()
    status = crew.reports["failing"].status
    assert status.startswith(told)
    assert "concatenate" not in status
