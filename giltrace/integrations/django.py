"""GIL metrics of a Django project: one line in its settings, and one where its addresses are::

    INSTALLED_APPS = [..., "giltrace.integrations.django.Giltrace"]     # counts
    urlpatterns = [..., path("metrics", giltrace.integrations.django.metrics)]   # serves Prometheus

With several processes name a folder that they share by ``GILTRACE_METRICS_DIR``: each then tells of all.
"""

from __future__ import annotations

import functools
from typing import Any

from django.apps import AppConfig
from django.http import HttpRequest, HttpResponse

import giltrace.metrics
from giltrace.integrations._service import start_or_warn


class Giltrace(AppConfig):
    """Counts from the time on that Django is ready."""

    name = "giltrace.integrations.django"
    label = "giltrace"

    def ready(self) -> None:
        """Start; a project that cannot be counted goes on without."""
        start_or_warn()


def metrics(request: HttpRequest) -> HttpResponse:
    """A view that answers Prometheus, in the format that it asks for."""
    from prometheus_client.exposition import choose_encoder

    encode, kind = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(_registry()), content_type=kind)


@functools.cache
def _registry() -> Any:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(giltrace.metrics.PrometheusCollector())
    return registry
