"""Which files are libraries: Python's standard library, what is installed beside it, and what is frozen into it.

Only paths tell that: a recording is read on machines that do not have the files.
"""

from __future__ import annotations

import re

_LIBRARY = re.compile(
    r"""(?:^|/)(?:site|dist)-packages/  # what is installed, in any layout
    | (?:^|/)lib(?:32|64)?/(?:python|pypy)\d+(?:\.\d+t?)?/  # an installed standard library
    | (?:^|/)python\d+\.zip/  # one in an archive
    | ^<frozen\ | ^<garbage\ collector>$  # the interpreter's own""",
    re.VERBOSE,
)
# Whoever starts threads has this function on their stacks: it tells where the standard library lies in a build tree.
_THREADING = "/threading.py"
_BOOTSTRAP = frozenset({"_bootstrap", "_bootstrap_inner", "Thread._bootstrap", "Thread._bootstrap_inner"})


class Libraries:
    """Knows libraries by their paths, also in the folders of standard libraries that it was told of."""

    def __init__(self) -> None:
        self._folders: set[str] = set()

    def learn(self, function: str, file: str) -> bool:
        """Look at a frame for the folder of a standard library; whether that is a new one."""
        if function not in _BOOTSTRAP or not file.endswith(_THREADING):
            return False
        folder = file.removesuffix("threading.py")
        known = folder in self._folders
        self._folders.add(folder)
        return not known

    def has(self, file: str) -> bool:
        """Whether `file` is a library's."""
        return _LIBRARY.search(file) is not None or file.startswith(tuple(self._folders))
