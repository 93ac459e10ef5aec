"""What a process runs, by its command line."""

from __future__ import annotations

import pytest

from giltrace.analysis.measure.commands import words_of


@pytest.mark.parametrize(
    ("cmdline", "told"),
    [
        ("/usr/bin/python3 -X dev -u /srv/app/serve.py --port 80", "serve.py --port 80"),
        ("python3 -m celery -A app worker", "celery -A app worker"),
        ("/usr/bin/python3 -c pass", "python3 -c pass"),
        ("gunicorn: worker [app]", "gunicorn: worker [app]"),
        ("postgres: me db idle", "postgres: me db idle"),
        ("", "python"),
    ],
)
def test_the_script_a_module_or_the_title_tells_a_process(cmdline: str, told: str) -> None:
    assert " ".join(words_of(cmdline)) == told
