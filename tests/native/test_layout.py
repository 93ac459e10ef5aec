"""layout.h and recording/layout.py describe the same bytes, and so do count_layout.h and metrics/layout.py."""

from __future__ import annotations

import ctypes

import numpy as np

from giltrace import native
from giltrace.metrics import layout as counts
from giltrace.metrics import reading
from giltrace.recording import layout

HEADS = {
    "gt_header": layout.HEADER,
    "gt_chunk": layout.CHUNK,
    "gt_stretch": layout.STRETCH,
    "gt_count_head": counts.HEAD,
    "gt_count_table": counts.TABLE,
    "gt_tally": counts.TALLY,
}


def c_rows() -> dict[str, tuple[int, int]]:
    size = native.library().giltrace_layout(None, 0)
    buffer = ctypes.create_string_buffer(size + 1)
    native.library().giltrace_layout(buffer, size + 1)
    rows = (line.split() for line in buffer.value.decode().splitlines())
    return {name: (int(one), int(other)) for name, one, other in rows}


def python_fields(prefix: str, dtype: np.dtype[np.void]) -> dict[str, tuple[int, int]]:
    assert dtype.fields is not None
    return {f"{prefix}.{name}": (int(field[1]), field[0].itemsize) for name, field in dtype.fields.items()}


def python_constants() -> dict[str, tuple[int, int]]:
    heads = ("MAGIC", "CHUNK_MAGIC", "STRETCH_MAGIC", "VERSION", "HEADER_SIZE", "MAX_GILS", "NO_CORE")
    sizes = ("RING_CHUNK", "SMALL_RING", "SMALL_RING_CHUNK", "LEAST_CHUNK", "SMALL_CHUNK", "TIMED_EVERY", "TIMED_MOST")
    shifts = ("TIME_BITS", "KIND_SHIFT", "FLAG_SHIFT", "GIL_SHIFT", "CORE_SHIFT", "POWER_BITS")
    constants = {f"GT_{name}": (int(getattr(layout, name)), 0) for name in heads + sizes + shifts}
    constants |= {f"GT_CLOCK_{member.name}": (int(member), 0) for member in layout.Clock}
    flags = (
        layout.RecordFlag,
        layout.RequestFlag,
        layout.TimeoutFlag,
        layout.AddressFlag,
        layout.WakeFlag,
        layout.TypeFlag,
    )
    locks = (layout.More, layout.Way, layout.Outcome)
    for enumeration in (layout.Kind, *flags, *locks, layout.Status, layout.Control, layout.Trigger):
        constants |= {f"GT_{member.name}": (int(member), 0) for member in enumeration}
    for event in (layout.Kind.SLEPT, layout.Kind.AWOKE, layout.Kind.POSTED):
        del constants[f"GT_{event.name}"]
    return constants | count_constants()


def count_constants() -> dict[str, tuple[int, int]]:
    constants = {
        "GT_COUNT_MAGIC": counts.MAGIC,
        "GT_COUNT_VERSION": counts.VERSION,
        "GT_COUNT_PIECE": counts.PIECE,
        "GT_MOST_PIECES": counts.MOST_PIECES,
        "GT_BUCKETS": reading.BUCKETS,
        "GT_PLACES": counts.PLACES,
        "GT_COLLECTS": counts.COLLECTS,
        "GT_FIRST_TALLY": counts.FIRST_TALLY,
    }
    for prefix, enumeration in (("GT", counts.Table), ("GT_TALLY", counts.TallyState), ("GT", counts.Length)):
        constants |= {f"{prefix}_{member.name}": int(member) for member in enumeration}
    constants |= {f"COUNT_{member.name}": int(member) for member in native.Mode}
    return {name: (value, 0) for name, value in constants.items()}


def test_c_and_python_agree_on_every_field_and_constant() -> None:
    expected = python_constants()
    for prefix, dtype in HEADS.items():
        expected |= python_fields(prefix, dtype)
    assert c_rows() == expected


def test_heads_have_no_gaps_that_only_one_side_knows() -> None:
    rows = c_rows()
    for prefix, dtype in HEADS.items():
        assert max(offset + size for name, (offset, size) in rows.items() if name.startswith(prefix)) == dtype.itemsize
