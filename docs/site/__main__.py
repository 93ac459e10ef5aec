"""Build the site: ``python -m docs.site FOLDER``. A broken link, anchor or picture is an error. Nothing is downloaded."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from docs.site.pages import DOCS, assemble


def build(target: Path) -> int:
    """Build the site into `target` and return the exit status of Sphinx, which tells on stderr what is wrong."""
    with tempfile.TemporaryDirectory(prefix="giltrace-docs-") as name:
        sources = Path(name, "sources")
        assemble(sources)
        sphinx = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-n", "-c", str(DOCS)]
        return subprocess.run([*sphinx, "-d", f"{name}/doctrees", str(sources), str(target)], check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(build(Path(sys.argv[1])))
