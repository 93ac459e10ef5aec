"""Archives of numpy arrays with a description in JSON: what collectors leave that samples or count."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.recording.door import Damaged, Source, refuse_constant
from giltrace.recording.replacing import replacing
from giltrace.text import visible

_REMEDY = "delete that file to go on without it"


def write_archive(path: Path, about: Mapping[str, Any], name: str, rows: npt.NDArray[np.void]) -> None:
    """Write `rows` under a `name`, and what is to be known `about` them.

    The file appears at `path` only when it is whole. Raises OSError if it cannot be written.
    """
    # Names come from other people's files: surrogates from undecodable ones must survive.
    text = json.dumps(about, ensure_ascii=True).encode("ascii")
    arrays: dict[str, npt.NDArray[Any]] = {"about": np.frombuffer(text, np.uint8), name: rows}
    with replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_archive(
    path: Path, version: int, accepted: Mapping[str, Callable[[Any], bool]], name: str, dtype: np.dtype[Any]
) -> tuple[dict[str, Any], npt.NDArray[np.void]]:
    """Read what `write_archive` wrote; `accepted` says what each part of the description may be.

    Raises `Damaged` where it makes no sense, and OSError.
    """
    try:
        with Source(path) as source, zipfile.ZipFile(io.BytesIO(source.data())) as archive:
            about = json.loads(_array(archive, "about", np.dtype(np.uint8)).tobytes(), parse_constant=refuse_constant)
            rows = _array(archive, name, dtype)
    except Damaged:
        raise
    except (ValueError, KeyError, EOFError, RuntimeError, RecursionError, struct.error, zipfile.BadZipFile) as error:
        raise Damaged(path, visible(str(error)) or "it is no archive", _REMEDY) from error
    if not isinstance(about, dict) or about.get("version") != version:
        raise Damaged(path, "it is of another version", "upgrade giltrace")
    wrong = [part for part, makes_sense in accepted.items() if part not in about or not makes_sense(about[part])]
    if wrong:
        raise Damaged(path, f"its {wrong[0]} makes no sense", _REMEDY)
    return about, rows


def _array(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Read an array of one dimension of the archive, if it is there as it was written: not packed, and all of it."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ValueError(f"its {name} are packed")
    file = io.BytesIO(archive.read(entry))
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"its {name} are of another format")
    shape, fortran, found = np.lib.format.read_array_header_1_0(file)
    rest = file.read()
    if found != dtype or fortran or len(shape) != 1 or shape[0] * dtype.itemsize != len(rest):
        raise ValueError(f"its {name} have other columns, or not as many rows as they say")
    return np.frombuffer(rest, dtype)
