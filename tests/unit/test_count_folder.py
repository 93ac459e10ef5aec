"""The folder that processes count in: removed by who made it, whoever keeps sums there meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from giltrace.launch import count_folder
from giltrace.launch.count_folder import had_alone, made_for_counts, remove
from giltrace.metrics.ledger import NAME, Ledger
from tests.made_readings import MadePages, counts, reading


def test_it_is_not_removed_while_somebody_keeps_sums_there(tmp_path: Path) -> None:
    folder = tmp_path / "counts"
    folder.mkdir()
    removes = threading.Thread(target=remove, args=(folder,))
    with had_alone(folder):
        removes.start()
        for number in range(100):
            (folder / f"{NAME}.{number}").write_text("")
            assert folder.is_dir()
    removes.join()
    assert list(tmp_path.iterdir()) == []


def test_who_waited_for_it_finds_it_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "counts"
    folder.mkdir()
    told = list[type[BaseException]]()

    def keeps() -> None:
        try:
            with had_alone(folder):
                raise AssertionError("it is gone")
        except OSError as error:
            told.append(type(error))

    waits = threading.Thread(target=keeps)
    opened, opens = threading.Event(), count_folder._opened

    def tell(folder: Path) -> int:
        descriptor = opens(folder)
        opened.set()
        return descriptor

    with had_alone(folder):
        monkeypatch.setattr(count_folder, "_opened", tell)
        waits.start()
        opened.wait()
        folder.rename(tmp_path / "gone")
    waits.join()
    assert told == [FileNotFoundError]


def test_nobody_who_was_stopped_holds_it_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_folder, "_PATIENCE_SECONDS", 0.01)
    folder = tmp_path / "counts"
    folder.mkdir()
    with had_alone(folder):
        remove(folder)
        assert list(tmp_path.iterdir()) == []


def test_sums_of_what_was_removed_are_what_there_was() -> None:
    pages = MadePages(reading(roles={"a": counts(3)}))
    with made_for_counts() as folder:
        ledger, late = Ledger(pages, folder), Ledger(pages, folder)
        there = ledger.update()
        assert (folder / NAME).exists()
    assert not folder.parent.exists()
    assert ledger.update() == there
    assert late.update().roles == ()
