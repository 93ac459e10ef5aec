"""What the Firefox Profiler's processed format asks for, checked on a parsed profile without the viewer's code.

After the type declarations and the changelog in the viewer's own documentation of the format, for version 60.
"""

from __future__ import annotations

from typing import Any

Json = Any


def check(profile: Json) -> None:
    """Assert that tables are as long as they say and that every reference leads somewhere."""
    shared = profile["shared"]
    strings = len(shared["stringArray"])
    for name, table in shared.items():
        if name != "stringArray":
            _columns(name, table)
    frames, functions, stacks = shared["frameTable"], shared["funcTable"], shared["stackTable"]
    categories = profile["meta"]["categories"]
    assert any(category["color"] == "grey" for category in categories)
    assert all(category["subcategories"][0] == "Other" for category in categories)
    _refer(stacks["frame"], frames["length"])
    _refer(stacks["prefix"], stacks["length"], or_none=True)
    # The viewer reads the tree in one pass: parents come first.
    assert all(prefix is None or prefix < at for at, prefix in enumerate(stacks["prefix"]))
    _refer(frames["func"], functions["length"])
    _refer(frames["category"], len(categories), or_none=True)
    assert [c is None for c in frames["category"]] == [s is None for s in frames["subcategory"]]
    _refer(functions["name"], strings)
    _refer(functions["source"], shared["sources"]["length"], or_none=True)
    _refer(shared["sources"]["filename"], strings)
    schema = {
        one["name"]: {field["key"]: field["format"] for field in one["fields"]}
        for one in profile["meta"]["markerSchema"]
    }
    for thread in profile["threads"]:
        assert isinstance(thread["pid"], str)
        _columns("samples", thread["samples"], "weightType")
        _columns("markers", thread["markers"])
        _refer(thread["samples"]["stack"], stacks["length"], or_none=True)
        assert thread["samples"]["time"] == sorted(thread["samples"]["time"])
        assert thread["samples"]["weightType"] == "tracing-ms"
        _markers(thread["markers"], schema, strings, stacks["length"], len(categories))


def _markers(markers: Json, schema: dict[str, dict[str, str]], strings: int, stacks: int, categories: int) -> None:
    _refer(markers["name"], strings)
    _refer(markers["category"], categories)
    assert set(markers["phase"]) <= {0, 1}
    assert [end is None for end in markers["endTime"]] == [phase == 0 for phase in markers["phase"]]
    for data in markers["data"]:
        fields = dict(data)
        known = schema[fields.pop("type")]
        if "cause" in fields:
            _refer([fields.pop("cause")["stack"]], stacks)
        assert fields.keys() <= known.keys()
        shares = [fields.pop(key) for key, form in known.items() if form == "percentage" and key in fields]
        assert all(0 <= share <= 1 for share in shares)
        assert all(isinstance(value, int) for value in fields.values())
        _refer([value for key, value in fields.items() if known[key] == "unique-string"], strings)


def _columns(name: str, table: Json, *scalars: str) -> None:
    for column, values in table.items():
        if column not in ("length", *scalars):
            assert len(values) == table["length"], f"{name}.{column}"


def _refer(references: list[int | None], count: int, *, or_none: bool = False) -> None:
    for one in set(references):
        assert (one is None and or_none) or (one is not None and 0 <= one < count), one
