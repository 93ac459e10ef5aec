"""viztracer's tracer alone, so that the target neither sees nor hears of it; see `sitecustomize.py`.

The package `viztracer` would import what the target may never have asked for. Its tracer warns and prints into the
target's streams where it loses its way, and gives threads that Python did not start a name and a number.
"""

from __future__ import annotations

import _frozen_importlib as importing
import _thread
import os
import sys

TYPE_CHECKING = False  # typing is not imported into the target
if TYPE_CHECKING:
    from typing import Any

_PRINTS = ("PyErr_WarnEx", "puts")
#: Take no arguments and do nothing while no exception is set: one that is bound already takes the place of the above.
_HARMLESS = ("PyErr_Clear", "PyErr_Occurred", "PyEval_GetFrame")


class Unusable(Exception):
    """This viztracer would show in the target."""


def load() -> Any:
    """Return the module that has viztracer's `Tracer`, to be kept: it empties itself when nobody refers to it.

    Raises ImportError if there is none, `Unusable` if it would show.
    """
    package = _find("viztracer", None)
    spec = _find("viztracer.snaptrace", package.submodule_search_locations)
    version = _version(package.origin)
    if int(version.split(".")[0]) < 1:
        raise Unusable("viztracer 1.0 or newer is needed, not " + version)
    module = _execute(spec)
    try:
        _silence(spec.origin)
    except (OSError, ValueError, LookupError, StopIteration) as error:
        raise Unusable("viztracer cannot be kept from printing (" + str(error) + ")") from None
    return module


def _find(name: str, path: Any) -> Any:
    for finder in sys.meta_path:
        find: Any = getattr(finder, "find_spec", None)
        spec = find(name, path) if find is not None else None
        if spec is not None and spec.origin:
            return spec
    raise ImportError(name)


def _version(origin: str) -> str:
    with open(origin, "rb") as file:
        return file.read().partition(b'__version__ = "')[2].partition(b'"')[0].decode() or "0"


class _Threading:
    """What the tracer asks of `threading`, without the side effects."""

    __spec__ = None

    @staticmethod
    def current_thread() -> Any:
        known = getattr(sys.modules.get("threading"), "_active", {})
        return known.get(_thread.get_ident(), _Threading)

    @staticmethod
    def setprofile(function: Any) -> None:
        try:
            import threading

            threading.setprofile(function)
        except Exception:
            if function is not None:  # as it is when the tracer goes, together with the interpreter
                raise


class _Later:
    """A module that is imported when it is needed, which it is only where the target uses viztracer itself."""

    __spec__ = None

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(__import__(self._name), name)


class _Json(_Later):
    """`json`, which is not needed for the dictionaries that `giltrace_viztracer.py` puts among the calls."""

    @staticmethod
    def dumps(raw: Any) -> str:
        return '{"giltrace": 0}' if "giltrace" in raw else __import__("json").dumps(raw)


def _execute(spec: Any) -> Any:
    modules: Any = sys.modules
    stand_ins: dict[str, Any] = {"threading": _Threading, "trio": None}
    stand_ins.update({"json": _Json("json"), "multiprocessing": _Later("multiprocessing")})
    names = (*stand_ins, spec.name)
    hidden = {name: modules[name] for name in names if name in modules}
    modules.update(stand_ins)
    try:
        module = importing.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        for name in names:
            modules.pop(name, None)
        modules.update(hidden)
    return module


def _silence(path: str) -> None:
    """Redirect what the library at `path` prints with, in its table of imported functions."""
    with open(path, "rb") as file:
        slots = _slots(file.read())
    with open("/proc/self/maps", "rb") as file:
        maps = [line.split(None, 5) for line in file.read().split(b"\n")[:-1]]
    own = [line for line in maps if line[-1] == os.fsencode(os.path.realpath(path))]
    base = min(_range(line)[0] for line in own)
    code = [_range(line) for line in maps if b"x" in line[1] and line not in own]
    with open("/proc/self/mem", "r+b", 0) as memory:

        def read(address: int) -> int:
            memory.seek(address)
            return int.from_bytes(memory.read(8), "little")

        bound = [read(base + slots[name]) for name in _HARMLESS if name in slots]
        harmless = next(value for value in bound if any(low <= value < high for low, high in code))
        for name in _PRINTS:
            memory.seek(base + slots[name])
            memory.write(harmless.to_bytes(8, "little"))
            if read(base + slots[name]) != harmless:
                raise ValueError(name)


def _range(line: list[bytes]) -> tuple[int, int]:
    low, _, high = line[0].partition(b"-")
    return int(low, 16), int(high, 16)


def _slots(image: bytes) -> dict[str, int]:
    """Return where a 64-bit ELF library keeps the addresses of the functions that it imports, from its base on."""
    if image[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit ELF file")

    def number(at: int, size: int = 8) -> int:
        return int.from_bytes(image[at : at + size], "little")

    first, each = number(32), number(54, 2)
    headers = [first + each * index for index in range(number(56, 2))]
    loads = [(number(at + 16), number(at + 32), number(at + 8)) for at in headers if number(at, 4) == 1]

    def place(address: int) -> int:
        return next(at + address - begin for begin, size, at in loads if begin <= address < begin + size)

    dynamic = next(number(at + 8) for at in headers if number(at, 4) == 2)
    tags: dict[int, int] = {}
    while number(dynamic):
        tags[number(dynamic)] = number(dynamic + 8)
        dynamic += 16
    symbols, names = place(tags[6]), place(tags[5])
    slots = {}
    for table, size in ((7, 8), (23, 2)):  # DT_RELA and DT_RELASZ, DT_JMPREL and DT_PLTRELSZ
        if table in tags:
            start = place(tags[table])
            for at in range(start, start + tags[size], 24):
                name = names + number(symbols + 24 * number(at + 12, 4), 4)
                slots[image[name : image.index(b"\0", name)].decode()] = number(at)
    return slots
