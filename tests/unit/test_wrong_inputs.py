"""A hundred wrong inputs: each ends with one line that says what is wrong, one that says what to do, and status 2.

Nothing is left behind by any of them, and nothing goes to stdout.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from giltrace.cli import app
from traces.regenerate import unpack

NOBODY = "999999999"

#: Command lines, split at blanks; ``''`` is an empty word. Each stands with what the first line has to name.
WRONG = [
    # commands
    ("recrod", "recrod"),
    ("reports single", "reports"),
    ("--bad", "--bad"),
    ("--versoin", "--versoin"),
    ("'' single", "''"),
    # options that are none, or lack their value
    ("record --bad single", "--bad"),
    ("record --forse -c pass", "--forse"),
    ("record -x -c pass", "-x"),
    ("record -m", "-m"),
    ("record -c", "-c"),
    ("record --light -m", "-m"),
    ("record -o", "-o"),
    ("record --max-size", "--max-size"),
    ("record --ring", "--ring"),
    ("record --without", "--without"),
    ("record --python", "--python"),
    ("record --stacks", "--stacks"),
    ("record --light=yes -c pass", "--light"),
    ("attach --bad 1", "--bad"),
    ("attach -d", "-d"),
    ("report --bad single", "--bad"),
    ("report single --html", "--html"),
    ("report single --window", "--window"),
    ("view --prot 1 single", "--prot"),
    ("check single --max-wait", "--max-wait"),
    ("export single --to", "--to"),
    ("compare single single --al", "--al"),
    ("top --onec 1", "--onec"),
    ("doctor --pids 1", "--pids"),
    ("workloads --bad", "--bad"),
    # arguments that are missing, or too many
    ("record", "nothing to record"),
    ("record --light", "nothing to record"),
    ("record --", "nothing to record"),
    ("attach", "PID"),
    ("dump", "PID"),
    ("report", "NAME"),
    ("view", "NAME"),
    ("query", "NAME"),
    ("check", "NAME"),
    ("compare single", "AFTER"),
    ("export", "NAME"),
    ("top", "nothing to look at"),
    ("top --observe", "--observe"),
    ("report single single", "single"),
    ("workloads single", "single"),
    ("attach 1 2", "2"),
    # what to run
    ("record nobody.py", "nobody.py"),
    ("record ''", "''"),
    ("record .", "'.'"),
    ("record -m ''", "-m"),
    ("record -m --", "-m"),
    ("record -m --light -c pass", "-m"),
    ("record --python nobody -c pass", "nobody"),
    ("record --python /bin/true -c pass", "/bin/true"),
    ("top nobody.py", "nobody.py"),
    ("top --observe app.py", "--observe"),
    # where to write
    ("record -o '' -c pass", "-o"),
    ("record -o . -c pass", "-o"),
    ("record -o .. -c pass", "-o"),
    ("record -o / -c pass", "-o"),
    ("record -o .giltrace -c pass", "-o"),
    ("record -o x/.. -c pass", "-o"),
    ("record -o /dev/null/x -c pass", "/dev/null"),
    ("record -o taken -c pass", "taken.pftrace"),
    ("record -o single -c pass", "single.giltrace"),
    (f"attach {NOBODY} -o .", "-o"),
    ("report single --html ''", "--html"),
    ("report single --html .", "--html"),
    ("report single --html taken.pftrace", "taken.pftrace"),
    ("report single --html /dev/null/x", "/dev/null/x"),
    ("export single --to csv -o .", "."),
    ("export single --to csv -o taken.pftrace", "taken.pftrace"),
    ("export single --to chrome -o ''", "-o"),
    ("top --once --output taken.pftrace -c pass", "taken.pftrace"),
    # values at their edges
    ("record --ring 0MiB -c pass", "0MiB"),
    ("record --max-size 64 -c pass", "--max-size"),
    ("record --max-size 1kB -c pass", "--max-size"),
    ("record --ring 64MiB --max-size 1GB -c pass", "--max-size"),
    ("record --ring 64 -c pass", "--ring"),
    ("record --ring 1e3MiB -c pass", "--ring"),
    (f"record --ring {'9' * 400}GiB -c pass", "--ring"),
    ("record --ring -1MiB -c pass", "--ring"),
    ("record --ring 1MiB --dump-on soon -c pass", "--dump-on"),
    ("record --ring 1MiB --dump-on wait>5 -c pass", "--dump-on"),
    ("record --ring 1MiB --max-dumps 0 -c pass", "--max-dumps"),
    ("record --ring 1MiB --max-dumps many -c pass", "--max-dumps"),
    ("record --stacks some -c pass", "--stacks"),
    ("record --with perf -c pass", "perf"),
    ("record --spans --without viztracer -c pass", "viztracer"),
    ("record --ring 1MiB --spans -c pass", "viztracer"),
    ("record --native --light -c pass", "--native"),
    ("attach 0", "PID"),
    ("attach -- -1", "PID"),
    ("attach app.py", "PID"),
    (f"attach {NOBODY}", NOBODY),
    (f"attach {NOBODY} -d 0s", "--duration"),
    (f"attach {NOBODY} -d 5x", "--duration"),
    (f"attach {NOBODY} --without gil", "attaching"),
    (f"dump {NOBODY}", NOBODY),
    ("dump -- -1", "PID"),
    ("dump 0", "PID"),
    ("dump app.py", "PID"),
    ("top --once -d 0s 1", "--duration"),
    ("top --once -d ten 1", "--duration"),
    ("top --interval 0s 1", "--interval"),
    ("top --interval 1h 1", "--interval"),
    (f"top --once {NOBODY}", NOBODY),
    ("doctor --pid 0", "--pid"),
    (f"doctor --pid {NOBODY}", NOBODY),
    ("view single --port 65536", "--port"),
    ("view single --at soon", "--at"),
    ("view single --top-waits 0", "--top-waits"),
    ("check single", "nothing to check"),
    ("check single --max-wait 10", "--max-wait"),
    (f"check single --max-wait {'9' * 400}s", "--max-wait"),
    ("check single --max-wait-share 120%", "--max-wait-share"),
    ("check single --max-lost -1", "--max-lost"),
    ("check single --verdict nobody", "nobody"),
    # recordings, and parts of them
    ("report nobody", "nobody"),
    ("report ''", "not a giltrace recording"),
    ("report taken.pftrace", "taken.pftrace"),
    ("report single --window 2s..1s", "2s..1s"),
    ("report single --window x", "x"),
    ("report single --after 1000", "1000"),
    ("report single --process nobody", "nobody"),
    ("report single --thread nobody", "nobody"),
    ("view nobody", "nobody"),
    ("query nobody select", "nobody"),
    ("export single --to foo", "foo"),
    ("export single --to csv --table foo", "foo"),
    ("export single --to chrome --table waits", "--table"),
    ("compare single nobody", "nobody"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: the recording single.giltrace, the file taken.pftrace."""
    unpack("single", tmp_path)
    (tmp_path / "taken.pftrace").write_text("mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def test_there_are_a_hundred() -> None:
    assert len({line for line, _ in WRONG}) == len(WRONG) >= 100


@pytest.mark.parametrize(("line", "named"), WRONG, ids=lambda text: text[:60])
def test_it_is_told_in_one_way(line: str, named: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything(folder)
    with pytest.raises(SystemExit) as ended:
        app.main(["" if word == "''" else word for word in line.split()])
    out, err = capsys.readouterr()
    told = err.splitlines()
    assert (ended.value.code, out, len(told)) == (2, "", 2), err
    assert told[0].startswith("giltrace: error: ")
    assert named in told[0]
    assert told[1].startswith("  ")
    assert len(told[1]) > 10
    assert everything(folder) == before


@pytest.mark.parametrize("columns", ["0", "1", "-1", "x", ""])
def test_a_width_that_cannot_be_meant_is_none(
    columns: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", columns)
    with pytest.raises(SystemExit) as ended:
        app.main(["report", "single"])
    assert ended.value.code == 0
    assert "Single-threaded" in capsys.readouterr().out
