"""Build the site: ``python -m docs.site FOLDER``. What leads nowhere is an error. Nothing is downloaded."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from docs.site.pages import DOCS, assemble


def build(target: Path) -> int:
    """Build the site into `target` and return the exit status, 0 if all is well."""
    with tempfile.TemporaryDirectory(prefix="giltrace-docs-") as name:
        sources = Path(name, "sources")
        assemble(sources)
        return render(sources, target)


def render(sources: Path, target: Path) -> int:
    """Turn the Markdown in `sources` into pages in `target`; return the status of Sphinx, which tells what is wrong."""
    with tempfile.TemporaryDirectory(prefix="giltrace-docs-") as cache:
        sphinx = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-n", "-c", str(DOCS), "-d", cache]
        return subprocess.run([*sphinx, str(sources), str(target)], check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(build(Path(sys.argv[1])))
