"""The parts of the exporter that need no trace processor: packet templates, nesting, colours, names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from giltrace.exporters._names import command_words, labels
from giltrace.exporters.perfetto.colours import GREEN, HOLDERS, RED, correlation_id, hue_and_lightness
from giltrace.exporters.perfetto.nesting import nested_order
from giltrace.exporters.perfetto.packets import Field, Shape, packed_varints, varint
from giltrace.exporters.perfetto.protos import packet, pb
from giltrace.recording.events import SPAN
from giltrace.timeline.model import Array, Thread
from tests.synthetic import make_process


def build(value: Mapping[str, int]) -> Any:
    event = pb.TrackEvent(
        type=1, track_uuid=value["uuid"], name_iid=value["name"], terminating_flow_ids=[value["flow"]]
    )
    return packet(timestamp=value["time"], track_event=event)


def test_protobuf_reads_back_what_numpy_filled_in() -> None:
    columns = {"time": Field.TIME, "uuid": Field.UUID, "name": Field.IID, "flow": Field.FLOW}
    limits = {"time": 2**63, "uuid": 2**35, "name": 2**28, "flow": 2**64}
    random = np.random.default_rng(5)
    values = {
        name: np.concatenate(
            (np.array([0, 1, 127, 128, limit - 1], np.uint64), random.integers(0, limit, 50, np.uint64, endpoint=False))
        )
        for name, limit in limits.items()
    }
    rows = Shape(build, columns).fill(**values)
    packets = pb.Trace.FromString(rows.tobytes()).packet
    assert len(packets) == 55
    for at, got in enumerate(packets):
        assert got == build({name: int(column[at]) for name, column in values.items()})


def test_a_column_that_the_packet_does_not_use_is_refused() -> None:
    with pytest.raises(ValueError, match="column other"):
        Shape(lambda value: packet(timestamp=value["time"]), {"time": Field.TIME, "other": Field.UUID})


@pytest.mark.parametrize("width", [1, 3, 5, 8])
def test_packed_varints_have_their_width_and_value(width: int) -> None:
    values = np.array([0, 1, 100, (1 << (7 * width)) - 1])
    data = packed_varints(values, width)
    assert len(data) == width * len(values)
    read = pb.FtraceEventBundle.CompactSched.FromString(b"\x0a" + varint(len(data)) + data).switch_timestamp
    assert list(read) == values.tolist()


def spans(*rows: tuple[int, int, int, int]) -> Array:
    """Rows of (tid, start, end, depth)."""
    table = np.zeros(len(rows), SPAN)
    for at, (tid, start, end, depth) in enumerate(rows):
        table[at] = (start, end, tid, at, depth)
    return table


def test_begins_and_ends_come_in_order_of_nesting() -> None:
    table = spans((1, 0, 10, 0), (1, 0, 5, 1), (1, 2, 5, 2), (1, 5, 10, 1), (1, 10, 12, 0), (2, 0, 3, 0), (2, 1, 1, 1))
    unchanged, order = nested_order(table)
    assert unchanged is table
    assert order.tolist() == [0, 1, 2, ~2, ~1, 3, ~3, ~0, 4, ~4, 5, 6, ~6, ~5]


def test_spans_of_no_length_at_one_instant_keep_their_order() -> None:
    _, order = nested_order(spans((1, 5, 5, 0), (1, 5, 5, 0), (1, 5, 5, 1), (1, 5, 9, 0)))
    assert order.tolist() == [0, ~0, 1, 2, ~2, ~1, 3, ~3]


@pytest.mark.parametrize(
    ("broken", "depths", "ends"),
    [
        ([(1, 0, 10, 0), (1, 2, 4, 2), (1, 6, 8, 2)], [0, 1, 1], [10, 4, 8]),
        ([(1, 0, 10, 3), (2, 0, 10, 1)], [0, 0], [10, 10]),
        ([(1, 0, 10, 0), (1, 5, 15, 1), (1, 12, 20, 1)], [0, 1, 0], [10, 10, 20]),
        ([(1, 0, 10, 0), (1, 5, 8, 0)], [0, 1], [10, 8]),
    ],
    ids=["a depth skipped", "no outermost", "outlives the one around it", "depths too small"],
)
def test_spans_that_do_not_nest_are_made_to(
    broken: list[tuple[int, int, int, int]], depths: list[int], ends: list[int]
) -> None:
    table, order = nested_order(spans(*broken))
    assert table["depth"].tolist() == depths
    assert table["end"].tolist() == ends
    assert sorted(order.tolist()) == sorted([*range(len(broken)), *(~at for at in range(len(broken)))])


def test_no_spans_have_no_order() -> None:
    assert len(nested_order(spans())[1]) == 0


@pytest.mark.parametrize("colour", [GREEN, RED, *HOLDERS])
def test_a_correlation_id_hashes_to_its_colour(colour: tuple[int, int]) -> None:
    hue, lightness = hue_and_lightness(correlation_id("slice ", *colour))
    assert abs(hue - colour[0]) <= 3
    assert abs(lightness - colour[1]) <= 2


def test_the_hash_is_the_one_of_the_ui() -> None:
    # Computed by the UI's own JavaScript.
    known = {"": (293, 47), "holds GIL": (120, 72), "线程 42": (208, 72), "x" * 40: (292, 76)}
    assert {text: hue_and_lightness(text) for text in known} == known


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/usr/bin/python3 /srv/app.py --port 1", ["app.py", "--port", "1"]),
        ("python -X dev -m http.server 8000", ["http.server", "8000"]),
        ("python -m http.server 8000", ["http.server", "8000"]),
        ("python -c pass", ["python", "-c", "pass"]),
        ("python", ["python"]),
        ("", ["python"]),
    ],
)
def test_a_process_is_named_by_its_script_or_module(command: str, words: list[str]) -> None:
    assert command_words(replace(make_process(), cmdline=command)) == words


def test_a_thread_without_a_name_is_called_by_its_tid() -> None:
    process = replace(make_process(), threads=(Thread(12, "", 0, 1), Thread(13, "worker", 0, 1)))
    assert labels(process) == ["thread 12", "worker"]
