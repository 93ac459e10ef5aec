"""Which files are libraries: Python's standard library, what is installed beside it, and what is frozen into it.

Only paths tell that: a recording is read on machines that do not have the files.
"""

from __future__ import annotations

import re
import sys

_LIBRARY = re.compile(
    r"""(?:^|/)(?:site|dist)-packages/  # what is installed, in any layout
    | (?:^|/)lib(?:32|64)?/(?:python|pypy)\d+(?:\.\d+t?)?/  # an installed standard library
    | (?:^|/)python\d+\.zip/  # one in an archive
    | (?:^|/)[^/]+\.(?:whl|egg)/  # a package that is run from its archive, or unpacked under its name
    | (?:^|/)_vendor(?:ed)?/  # what a package brings with it
    | ^<frozen\ | ^<garbage\ collector>$  # the interpreter's own
    | ^<(?:attrs\ generated|decorator-gen-|__array_function__|eval_with_key)  # written by a library""",
    re.VERBOSE,
)
# Whoever starts threads has this function on their stacks: it tells where the standard library lies in a build tree.
_THREADING = "threading.py"
_BOOTSTRAP = frozenset({"_bootstrap", "_bootstrap_inner", "Thread._bootstrap", "Thread._bootstrap_inner"})
# PyInstaller leaves of each path what was below a folder of sys.path, of the standard library's files too.
_FROZEN = re.compile(r"^(?:PyInstaller/|pyi_rth_|pyimod\d+_)")
# What installers write for a command: a script without a suffix that has no functions of its own.
_SCRIPT = re.compile(r"/bin/[^/.]+$")
# `dataclasses` and `namedtuple` execute text that they made.
_GENERATED = re.compile(r"^(?:__create_fn__\..*|__\w+__|<lambda>)$")


class Libraries:
    """Knows libraries by their paths, also in the folders of standard libraries that it was told of.

    A relative path is the user's, unless the standard library's own are relative: then the program is frozen, and what
    is named as a module of the standard library is that.
    """

    def __init__(self) -> None:
        self._folders: set[str] = set()
        self._frozen = False
        # Scripts and texts without a file of which a function was seen that nobody generated.
        self._written: set[str] = set()

    def learn(self, function: str, file: str) -> bool:
        """Look at a frame for what tells of its file and of others; whether that was new."""
        before = len(self._folders), self._frozen, len(self._written)
        if function in _BOOTSTRAP and file.endswith("/" + _THREADING):
            self._folders.add(file.removesuffix(_THREADING))
        elif (function in _BOOTSTRAP and file == _THREADING) or _FROZEN.search(file) is not None:
            self._frozen = True
        elif _SCRIPT.search(file) is not None:
            self._written |= {file} if function != "<module>" else set()
        elif file == "<string>" and _GENERATED.search(function) is None:
            self._written.add(file)
        return before != (len(self._folders), self._frozen, len(self._written))

    def has(self, file: str) -> bool:
        """Whether `file` is a library's."""
        if _LIBRARY.search(file) is not None or file.startswith(tuple(self._folders)):
            return True
        if _SCRIPT.search(file) is not None or file == "<string>":
            return file not in self._written
        return self._frozen and _is_standard(file)


def _is_standard(file: str) -> bool:
    """Whether a path of a frozen program is one of the standard library, or of what freezes programs."""
    module = file.partition("/")[0].removesuffix(".py")
    return module in sys.stdlib_module_names or _FROZEN.search(file) is not None
