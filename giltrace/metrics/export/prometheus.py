"""Totals as metrics of `prometheus_client`, for its registries and its formats."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from giltrace.metrics.families import FAMILIES, Family, Kind, Lengths
from giltrace.metrics.reading import BUCKETS, LOWEST
from giltrace.metrics.totals import Totals

#: Buckets that classic histograms have: each second power of two, from 2**-20 s (about 1 us) to 16 s.
_BOUNDS = range(-20 - LOWEST, 4 - LOWEST + 1, 2)


class TotalsCollector(Collector):
    """What a registry asks; `totals` is called for each scrape, and may return None for nothing."""

    def __init__(self, totals: Callable[[], Totals | None]) -> None:
        self._totals = totals

    def describe(self) -> Iterable[Metric]:
        """Which metrics there are, without reading any: their names must be free when this is registered."""
        return [_metric(family) for family in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        """All metrics as they are now."""
        totals = self._totals()
        return [] if totals is None else [_filled(family, totals) for family in FAMILIES]


def application(totals: Callable[[], Totals | None]) -> Callable[..., Iterable[bytes]]:
    """A WSGI application that answers each scrape, in the text format or OpenMetrics, as it is asked for."""
    registry = CollectorRegistry()
    registry.register(TotalsCollector(totals))
    made: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)
    return made


def _metric(family: Family) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    if family.kind is Kind.HISTOGRAM:
        return HistogramMetricFamily(family.name, family.help, labels=family.labels)
    if family.kind is Kind.COUNTER:
        return CounterMetricFamily(family.name, family.help, labels=family.labels)
    return GaugeMetricFamily(family.name, family.help, labels=family.labels)


def _filled(family: Family, totals: Totals) -> Metric:
    metric = _metric(family)
    for labels, value in family.points(totals):
        if isinstance(metric, HistogramMetricFamily):
            assert isinstance(value, Lengths)
            metric.add_metric(labels, classic(value), value.seconds)
        else:
            assert not isinstance(value, Lengths)
            metric.add_metric(labels, value)
    return metric


def classic(lengths: Lengths) -> list[tuple[str, float]]:
    """The buckets of a classic histogram: its upper bounds, and how many were no longer than each."""
    below = list(itertools.accumulate(lengths.buckets))
    bounds: list[tuple[str, float]] = [(str(2.0 ** (bucket + LOWEST)), below[bucket]) for bucket in _BOUNDS]
    return [*bounds, ("+Inf", below[BUCKETS - 1])]
