"""Instruments of an OpenTelemetry meter, in the program itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import giltrace
from giltrace import installation
from giltrace.errors import UsageError
from giltrace.metrics import inprocess
from giltrace.metrics.families import FAMILIES, Family, Kind, Lengths, attributes
from giltrace.metrics.totals import Totals

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider
except ImportError:
    raise UsageError("the OpenTelemetry API is not installed", installation.with_extra("otlp")) from None

#: All instruments are asked one after the other; one reading is for all of them.
_SAME_SECONDS = 0.1


class _Newest:
    """One reading for all that ask at the same time."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._totals: Totals | None = None
        self._until = 0.0
        self._read = inprocess.Quiet()

    def __call__(self) -> Totals | None:
        with self._turn:
            if time.monotonic() >= self._until:
                self._totals = self._read()
                self._until = time.monotonic() + _SAME_SECONDS
            return self._totals


def instrument(meter_provider: MeterProvider | None = None) -> None:
    """Let this process count, and have a meter of `meter_provider`, the global one by default, tell it.

    These are asynchronous instruments: they cost something only when somebody reads them. There are none of these for
    histograms in OpenTelemetry: `giltrace metrics --otlp` has those, too. To be called once per process, after a fork
    (as exporters have to be). Raises as `giltrace.metrics.start`.
    """
    inprocess.start()
    meter = (meter_provider or get_meter_provider()).get_meter("giltrace", giltrace.__version__)
    newest = _Newest()
    for family in FAMILIES:
        callbacks = [_observing(family, newest)]
        if family.kind is Kind.COUNTER:
            meter.create_observable_counter(family.instrument, callbacks, family.unit, family.help)
        elif family.kind is Kind.GAUGE:
            meter.create_observable_gauge(family.instrument, callbacks, family.unit, family.help)


def _observing(
    family: Family, newest: Callable[[], Totals | None]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        totals = newest()
        for labels, value in [] if totals is None else family.points(totals):
            assert not isinstance(value, Lengths)
            yield Observation(value, attributes(family, labels))

    return observe
