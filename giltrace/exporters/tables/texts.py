"""What a piece of a table is: its columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy.typing as npt


class Texts(NamedTuple):
    """A column of texts, few of them distinct: row i is ``values[code[i]]``."""

    code: npt.NDArray[Any]
    values: Sequence[str]


#: Integers, booleans, shares of 1 with four decimals, or texts, all columns of a piece equally long.
Column = npt.NDArray[Any] | Texts
Columns = dict[str, Column]
