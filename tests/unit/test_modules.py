"""Which module a stack imports, and what it is called."""

from __future__ import annotations

import numpy as np
import pytest

from giltrace.analysis.measure.modules import imported, module_name, packages
from tests.unit.analysis_stacks import Frame, stack_table

FROZEN = ("_call_with_frames_removed", "<frozen importlib._bootstrap>", 241)
LINE = ("load", "/srv/app.py", 30)
SITE = "/srv/venv/lib/python3.12/site-packages"


def body(file: str) -> Frame:
    return ("<module>", file, 3)


@pytest.mark.parametrize(
    ("stack", "name"),
    [
        ([body(f"{SITE}/b/x.py"), FROZEN, body(f"{SITE}/a/__init__.py"), FROZEN, LINE], "a"),
        ([("compile", "<frozen importlib._bootstrap_external>", 1), FROZEN, body(f"{SITE}/a.py"), FROZEN, LINE], "a"),
        # What the user's own module asks for; and that module, if it runs itself.
        ([body(f"{SITE}/a.py"), FROZEN, body("/srv/mine.py"), FROZEN, body("/srv/app.py")], "a"),
        ([("work", "/srv/mine.py", 5), body("/srv/mine.py"), FROZEN, body("/srv/app.py")], "mine"),
        # Without a line of the user's the first of all.
        ([body(f"{SITE}/b.py"), FROZEN, body(f"{SITE}/a.py"), FROZEN, ("run", f"{SITE}/main.py", 1)], "a"),
        # Its code is only being looked for; nobody imports.
        ([FROZEN, LINE], None),
        ([body(f"{SITE}/a.py"), LINE], None),
    ],
)
def test_the_module_that_the_users_line_asks_for(stack: list[Frame], name: str | None) -> None:
    module, names = imported(stack_table([[LINE], stack]))
    assert module[0] == -1
    assert (names[module[1]] if module[1] >= 0 else None) == name


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (f"{SITE}/sqlalchemy/orm/__init__.py", "sqlalchemy.orm"),
        ("/usr/lib/python3/dist-packages/yaml/loader.py", "yaml.loader"),
        ("/usr/lib/python3.11/xml/dom/minidom.py", "xml.dom.minidom"),
        ("/opt/python3.13/lib/python3.13t/json/__init__.py", "json"),
        ("/usr/lib/python311.zip/json/decoder.pyc", "json.decoder"),
        ("/srv/shop/views.py", "views"),
        ("/srv/shop/__init__.py", "shop"),
        ("<frozen zipimport>", "zipimport"),
        ("plugin.py", "plugin"),
    ],
)
def test_files_are_called_as_modules(file: str, name: str) -> None:
    assert module_name(file) == name


def test_modules_of_one_package_are_one() -> None:
    names = ["sqlalchemy", "flask", "sqlalchemy.orm", "xml.dom.minidom", "xml.dom.pulldom", "flask.json"]
    spent = packages(names, np.array([10.0, 7.0, 30.0, 5.0, 5.0, 1.0]))
    assert spent == {"sqlalchemy.orm": 40, "flask": 8, "xml.dom": 10}
