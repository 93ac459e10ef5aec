"""Dask: all workers of a cluster recorded at once, as `giltrace.dask`; and blame over what one machine cannot hold."""

from __future__ import annotations

from giltrace import installation
from giltrace.errors import UsageError

try:
    import distributed as _distributed  # noqa: F401
except ImportError as error:
    raise UsageError(f"Dask is not installed here: {error}", installation.with_extra("dask")) from None

from giltrace.integrations.dask.cluster import DaskCluster, connect
from giltrace.integrations.dask.fleet import record
from giltrace.integrations.dask.tables import blame, export

__all__ = ["DaskCluster", "blame", "connect", "export", "record"]
