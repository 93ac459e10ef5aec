"""viztracer's file to spans: nesting, rounding, what is left out."""

from __future__ import annotations

from giltrace.collectors._viztracer_calls import parse as parse_calls

LAST = 1 << 62


def call(tid: int, start: int, duration: int, name: str) -> str:
    def us(ns: int) -> str:
        return f"{ns // 1000}.{ns % 1000:03d}"

    return f'{{"pid":1,"tid":{tid},"ts":{us(start)},"ph":"X","cat":"fee","dur":{us(duration)},"name":"{name}"}},'


def parse(*calls: str, first: int = 0, last: int = LAST) -> list[tuple[int, int, int, str, int]]:
    names: dict[bytes, int] = {}
    dump = '{"traceEvents":[' + "".join(calls)[:-1] + '], "viztracer_metadata": {"overflow":false}}'
    rows = parse_calls(dump.encode(), names, first, last)
    texts = [name.decode() for name in names]
    return [(start, end, tid, texts[name], depth) for start, end, tid, name, depth in rows.tolist()]


def test_calls_nest_by_time() -> None:
    rows = parse(call(5, 1_200, 300, "g"), call(5, 1_000, 900, "f"), call(4, 1_100, 10, "h"))
    assert rows == [(1_100, 1_110, 4, "h", 0), (1_000, 1_900, 5, "f", 0), (1_200, 1_500, 5, "g", 1)]


def test_an_inner_call_that_seems_to_end_late_is_cut() -> None:
    rows = parse(call(5, 1_000, 500, "f"), call(5, 1_400, 101, "g"))
    assert rows == [(1_000, 1_500, 5, "f", 0), (1_400, 1_500, 5, "g", 1)]


def test_neighbours_that_seem_to_overlap_stay_neighbours() -> None:
    rows = parse(call(5, 1_000, 501, "f"), call(5, 1_500, 400, "g"))
    assert rows == [(1_000, 1_500, 5, "f", 0), (1_500, 1_900, 5, "g", 0)]


def test_giltraces_own_calls_are_left_out() -> None:
    rows = parse(
        call(5, 900, 10, "before"),
        call(5, 1_000, 10, "f"),
        call(5, 1_100, 10, "_Recorder.save (/x/giltrace_viztracer.py:9)"),
        call(5, 2_000, 10, "after"),
        first=1_000,
        last=2_000,
    )
    assert [row[3] for row in rows] == ["f"]


def test_names_may_hold_escapes() -> None:
    assert [row[3] for row in parse(call(5, 1, 1, 'a \\"b\\" \\\\'), call(5, 5, 1, "c"))] == ['a \\"b\\" \\\\', "c"]


def test_numbers_of_any_length() -> None:
    calls = [call(7, 999, 1, "a"), call(123_456, 10**15, 10**12, "b, c"), call(7, 10**12, 0, "")]
    assert parse(*calls) == [
        (999, 1_000, 7, "a", 0),
        (10**12, 10**12, 7, "", 0),
        (10**15, 10**15 + 10**12, 123_456, "b, c", 0),
    ]


def test_calls_of_no_length_lie_side_by_side() -> None:
    rows = parse(call(5, 1_000, 100, "f"), call(5, 1_010, 0, "g"), call(5, 1_020, 0, "h"), call(5, 1_100, 9, "i"))
    assert [(name, depth) for *_, name, depth in rows] == [("f", 0), ("g", 1), ("h", 1), ("i", 0)]


def test_deep_recursion() -> None:
    rows = parse(*(call(5, 1_000 + 50 * depth, 100_000 - 100 * depth, "f") for depth in range(500)))
    assert [depth for *_, depth in rows] == list(range(500))


def test_nothing_called() -> None:
    assert parse("x") == []
