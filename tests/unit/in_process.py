"""Run a command of giltrace's in the process of the test."""

from __future__ import annotations

import pytest

from giltrace.cli import app


def run(*words: object) -> object:
    """Run ``giltrace WORDS``; returns its exit status."""
    with pytest.raises(SystemExit) as ended:
        app.main([str(word) for word in words])
    return ended.value.code
