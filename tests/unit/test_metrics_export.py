"""What is told of totals: names, formats, the table's page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parsed

from giltrace.errors import UsageError
from giltrace.metrics.export.json_lines import JsonLines
from giltrace.metrics.export.listen import Address
from giltrace.metrics.export.otlp import endpoint_of
from giltrace.metrics.export.prometheus import TotalsCollector, classic
from giltrace.metrics.export.table import page
from giltrace.metrics.families import FAMILIES, MOST_PROGRAMS, Kind, Lengths, attributes
from giltrace.metrics.ledger import Ledger
from giltrace.metrics.reading import BUCKETS, CauseReading, LineReading
from giltrace.metrics.totals import Totals
from giltrace.views.top.graph import Ink
from giltrace.views.top.model import Graph
from tests.made_readings import SECOND, MadePages, counts, line, reading

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROLES = {"MainThread": counts(3, waits=1), "worker-*": counts(500, waits=400, longest=7_000_000)}


def totals(**about: object) -> Totals:
    told = {"roles": ROLES, "culprits": (line(12, SECOND),), "causes": (CauseReading("queue", 3, SECOND, 0),)}
    return Ledger(MadePages(reading(at=2.5, **{**told, **about}))).update()  # type: ignore[arg-type]


def test_names_follow_the_conventions_of_prometheus() -> None:
    for family in FAMILIES:
        assert re.fullmatch(r"(python_(gil|lock)|giltrace)_[a-z_]+", family.name)
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert ("seconds" in family.name) == (family.unit == "s")
        assert len(family.labels) == len(family.attributes)
        assert family.help.endswith(".")
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_names_follow_the_conventions_of_opentelemetry() -> None:
    names = [family.instrument for family in FAMILIES]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z][a-z_.]+[a-z]", name)
        # A name is no namespace of another one.
        assert not [other for other in names if other.startswith(f"{name}.")]


def test_every_metric_is_documented() -> None:
    text = (DOCS / "metrics.md").read_text()
    for family in FAMILIES:
        name = family.name + ("_total" if family.kind is Kind.COUNTER else "")
        row = f"| `{name}` | `{family.instrument}` | {family.kind.value} | {family.unit} |"
        row += f" {', '.join(family.labels) or '-'} | {family.help} |"
        assert row in text


def test_a_classic_histogram_has_each_second_bucket_and_all_of_them_together() -> None:
    lengths = Lengths(tuple(range(BUCKETS)), 1.0)
    buckets = classic(lengths)
    (last, together) = buckets[-1]
    assert (last, int(together)) == ("+Inf", sum(range(BUCKETS)))
    bounds = [float(bound) for bound, _ in buckets]
    assert bounds == sorted(bounds)
    assert [bound for bound in bounds if bound != float("inf")] == [2.0**power for power in range(-20, 5, 2)]
    # Less than 2**-20 s are those of the buckets that end there or before: four of them.
    assert buckets[0][1] == 0 + 1 + 2 + 3


def test_a_registry_tells_what_was_counted() -> None:
    registry = CollectorRegistry()
    registry.register(TotalsCollector(totals))
    told = {family.name: family for family in parsed(generate_latest(registry).decode())}
    held = {sample.labels["role"]: sample.value for sample in told["python_gil_held_seconds"].samples}
    assert held == {"MainThread": 0.003, "worker-*": 0.5}
    (culprit,) = told["python_gil_culprit_seconds"].samples
    assert (culprit.labels, culprit.value) == ({"line": "app.py:12", "function": "work"}, 1.0)


def test_a_registry_tells_gils_apart_and_of_each_role_what_is_no_gils() -> None:
    elsewhere = {("worker-*", "2"): counts(7, waits=1)}
    registry = CollectorRegistry()
    registry.register(TotalsCollector(lambda: totals(elsewhere=elsewhere)))
    samples = {
        (sample.name, sample.labels.get("gil"), sample.labels.get("role")): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }
    assert samples["python_gil_holds_total", "0", "worker-*"] == 500
    assert samples["python_gil_holds_total", "2", "worker-*"] == 7
    assert samples["python_gil_wait_seconds_count", "2", "worker-*"] == 1
    assert samples["python_gil_threads", None, "worker-*"] == 2
    assert samples["python_lock_block_seconds_count", None, "worker-*"] == 0
    assert {gil for name, gil, _ in samples if name == "python_gil_held_seconds_total"} == {"0", "2"}


def test_a_registry_with_a_metric_of_that_name_refuses_another() -> None:
    registry = CollectorRegistry()
    registry.register(TotalsCollector(totals))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(TotalsCollector(totals))


def test_nothing_to_tell_is_nothing() -> None:
    registry = CollectorRegistry()
    registry.register(TotalsCollector(lambda: None))
    assert generate_latest(registry) == b""


def test_programs_are_bounded() -> None:
    (family,) = [one for one in FAMILIES if one.name == "python_gil_processes"]
    from dataclasses import replace

    many = [replace(reading(pid), command=f"{'x' * 200} {pid // 2}") for pid in range(80)]
    points = list(family.points(Ledger(MadePages(*many)).update()))
    assert len(points) <= MOST_PROGRAMS + 1
    assert sum(value for _, value in points if isinstance(value, float)) == 80


def test_attributes_are_those_of_the_semantic_conventions() -> None:
    by_name = {family.name: family for family in FAMILIES}
    told = attributes(by_name["python_gil_culprit_seconds"], ("/a:b/app.py:12", "work"))
    assert told == {"code.file.path": "/a:b/app.py", "code.line.number": 12, "code.function.name": "work"}
    told = attributes(by_name["python_gil_processes"], ("python app.py", "3.13.1", "true"))
    assert told["cpython.free_threaded"] is True
    unknown = LineReading("", 0, "", SECOND, 0, 1)
    assert attributes(by_name["python_gil_victim_seconds"], (unknown.place, ""))["code.function.name"] == ""


def test_lines_of_json_are_lines() -> None:
    stream = StringIO()
    lines = JsonLines(stream)
    lines.begin(totals, totals(roles={}))
    lines.tell(totals(roles={'a\n"\x1b[2J': counts(1)}))
    (text,) = stream.getvalue().splitlines()
    assert json.loads(text)["roles"][0]["role"] == 'a\n"\x1b[2J'
    assert text.isprintable()


def test_a_line_of_json_says_how_right_the_sum_of_a_line_is_and_what_is_missing() -> None:
    before = replace(totals(culprits=(line(3, 2 * SECOND),)), unnamed_ns=(1, 0, 0))
    now = replace(before, culprits=(line(3, 5 * SECOND),), unnamed_ns=(SECOND + 1, 0, 0), refused=("of another",))
    stream = StringIO()
    lines = JsonLines(stream)
    lines.begin(lambda: before, before)
    lines.tell(now)
    lines.tell(replace(now, culprits=(*now.culprits, line(4, 7 * SECOND, error_ns=5 * SECOND))))
    first, second = (json.loads(text) for text in stream.getvalue().splitlines())
    assert [(one["line"], one["seconds"], one["total"]) for one in first["culprits"]] == [
        (3, 3.0, {"seconds": 5.0, "error": 0.0})
    ]
    assert (first["unnamed"], second["unnamed"]) == ([1.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    assert [(one["line"], one["seconds"], one["total"]) for one in second["culprits"]] == [
        (4, 2.0, {"seconds": 7.0, "error": 5.0})
    ]
    assert first["unread"] == ["of another"]


@pytest.mark.parametrize("width", [20, 40, 80, 132])
@pytest.mark.parametrize("height", [6, 12, 24, 50])
@pytest.mark.parametrize("rows", [0, 1, 3, 40])
def test_the_page_fits_whatever_there_is_to_show(width: int, height: int, rows: int) -> None:
    roles = {f"a long name of a role \x1b[2J {at} * " * 3: counts(at) for at in range(rows)}
    lines = tuple(line(number, number * SECOND) for number in range(1, rows))
    now = totals(roles=roles, culprits=lines)
    graph = Graph((0.5,) * 30, (0.2,) * 30)
    told = page("python app.py " * 20, "it has ended", now, now.since(None), graph, Ink(), width, height)
    assert len(told) == height
    assert all(len(one) <= width and one.plain.isprintable() for one in told)
    if rows == 3 and width >= 80 and height >= 24:
        text = "\n".join(one.plain for one in told)
        assert "work (app.py:2)" in text
        assert "it has ended" in text


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("127.0.0.1:9464", Address("127.0.0.1", 9464)),
        ("9464", Address("127.0.0.1", 9464)),
        (":0", Address("", 0)),
        ("[::1]:9464", Address("::1", 9464)),
        ("localhost:1", Address("localhost", 1)),
        ("unix:/run/x", Address(path="/run/x")),
    ],
)
def test_addresses(text: str, meant: Address) -> None:
    assert Address.of(text) == meant


@pytest.mark.parametrize("text", ["", "a", "unix:", "1:2:3", "127.0.0.1:65536", "[::1]", "http://x:1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError):
        Address.of(text)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/metrics"),
        ("https://a/", "https://a/v1/metrics"),
        ("https://a/otlp/v1/metrics", "https://a/otlp/v1/metrics"),
    ],
)
def test_endpoints(url: str, endpoint: str) -> None:
    assert endpoint_of(url) == endpoint


@pytest.mark.parametrize("url", ["", "a", "a:4317", "ftp://a", "http://", "http://a:99999", "http://a:x"])
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(UsageError):
        endpoint_of(url)
