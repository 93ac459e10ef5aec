"""The capabilities that this process has, and how its container gets those that it lacks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

_OWN = Path("/proc/self/status")


def lacking(needed: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Those of the `needed` that this process has not; one of the numbers of each is enough. Raises OSError."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", _OWN.read_text(), re.M)
    has = int(found[1], 16) if found else 0
    return [name for name, numbers in needed.items() if not any(has >> number & 1 for number in numbers)]


def in_kubernetes() -> bool:
    """Whether this is a container of a pod."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def granted(*names: str) -> str:
    """What to do where this is a container that lacks the capabilities of these names, such as SYS_PTRACE."""
    if in_kubernetes():
        return f"add {', '.join(names)} to securityContext.capabilities.add of this container"
    return f"in a container, start it with --cap-add {' --cap-add '.join(names)}"
