"""What a verdict may be called; here by itself, so that a command line can name them before it needs an analysis."""

from __future__ import annotations

#: Every kind of verdict.
KINDS = (
    "cpu-bound-contention",
    "io-bound-handoff",
    "convoy",
    "hog",
    "lock-bound",
    "stop-the-world",
    "deadlock",
    "parallel",
    "single-threaded",
    "idle",
    "free-threaded",
    "not-recorded",
)
