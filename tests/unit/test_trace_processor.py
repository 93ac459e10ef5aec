"""Trace processor in this process: what it took goes with it."""

from __future__ import annotations

import gc
import weakref

import pytest

from giltrace.views import trace_processor
from giltrace.views.trace_processor import TraceProcessor, unavailable


@pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
def test_its_memory_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = list[weakref.ref[object]]()

    class Machine(trace_processor._Machine):
        def __init__(self) -> None:
            super().__init__()
            stores.append(weakref.ref(self._store))

    monkeypatch.setattr(trace_processor, "_Machine", Machine)
    processor = TraceProcessor(b"")
    assert processor.query("select 1 as one") == [{"one": 1}]
    (store,) = stores
    assert store() is not None
    del processor
    gc.collect()
    assert store() is None
