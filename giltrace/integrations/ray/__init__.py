"""Ray: all workers of a cluster that were prepared for it recorded at once, as `giltrace.ray`."""

from __future__ import annotations

from giltrace import installation
from giltrace.errors import UsageError

try:
    import ray as _ray  # noqa: F401
except ImportError as error:
    raise UsageError(f"Ray is not installed here: {error}", installation.with_extra("ray")) from None

from giltrace.integrations.ray.fleet import prepared, record

__all__ = ["prepared", "record"]
