"""Whether a figure of one recording differs from that of another by more than each varies within itself.

A recording is cut into bins. A ratio (a share, a rate, a mean) varies from bin to bin; its standard error is that of a
ratio estimate over blocks of 1, 2 and 4 neighbouring bins, the largest counting, since neighbours are alike. A
quantile's interval is Woodruff's: the interval of the share of values below it, read back from the values. The two
intervals give that of the difference (the method of variance estimates recovery). Nothing is drawn at random.

What is not in it: how one *run* differs from the next by itself. `at_least` in `compare` keeps small differences out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, isfinite, log, sqrt
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.timeline.axis import Ints

Floats = npt.NDArray[np.float64]
Change = Literal["higher", "lower", "same", "unknown"]

#: How sure each single figure is; of 50 figures that did not change, one is called changed in 1 comparison of 20.
CONFIDENCE = 0.999
#: With fewer blocks than this nothing is said, and of fewer values no quantile.
FEWEST_BLOCKS = 8
FEWEST_VALUES = 20
_BLOCKS = (1, 2, 4)


class Estimate(NamedTuple):
    """A figure and its interval at `CONFIDENCE`; a bound that is not known is infinite."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """What became of a figure, and the interval of the change: a difference, or a factor if it was compared so."""

    change: Change
    low: float
    high: float


@dataclass(frozen=True)
class Ratio:
    """``sum(part) / sum(whole)``, both per bin; bins with nothing in `whole` do not count."""

    part: npt.NDArray[np.float64] | Ints
    whole: npt.NDArray[np.float64] | Ints

    def estimate(self) -> Estimate:
        """The ratio with its interval."""
        some = self.whole > 0
        part, whole = self.part[some].astype(np.float64), self.whole[some].astype(np.float64)
        if len(whole) == 0:
            return Estimate(0.0, -inf, inf)
        value = float(part.sum() / whole.sum())
        half = _half_width(part, whole)
        return Estimate(value, value - half, value + half)


@dataclass(frozen=True)
class Quantile:
    """The nearest-rank quantile `q` of `values`, each of which came in the bin `at`."""

    values: Ints
    at: Ints
    q: float

    def estimate(self) -> Estimate:
        """The quantile with its interval."""
        count = len(self.values)
        if count == 0:
            return Estimate(0.0, -inf, inf)
        ordered = np.sort(self.values)
        value = ordered[max(ceil(self.q * count) - 1, 0)]
        if count < FEWEST_VALUES:
            return Estimate(float(value), -inf, inf)
        bins = int(self.at.max()) + 1
        whole = np.bincount(self.at, minlength=bins)
        below = np.bincount(self.at[self.values <= value], minlength=bins)
        some = whole > 0
        half = _half_width(below[some].astype(np.float64), whole[some].astype(np.float64))
        # Never surer than with independent values: by chance no bin may show how they vary.
        half = max(half, _quantile_of_t(count - 1) * sqrt(self.q * (1 - self.q) / count))
        low, high = self.q - half, self.q + half
        return Estimate(
            float(value),
            float(ordered[max(ceil(low * count) - 1, 0)]) if low > 0 else -inf,
            float(ordered[ceil(high * count) - 1]) if high < 1 else inf,
        )


def compare(before: Estimate, after: Estimate, *, at_least: float, factor: bool) -> Difference:
    """Say whether a figure changed: by `at_least`, and with an interval of the change that leaves out no change.

    With `factor` the figures are compared as a quotient, `at_least` being a share of the smaller one. "unknown" is for
    figures that may have changed but vary too much, or are too few, to know their interval.
    """
    if factor and (before.value <= 0 or after.value <= 0):
        # There is no factor from or to nothing: any sure difference counts.
        return Difference(compare(before, after, at_least=0.0, factor=False).change, -inf, inf)
    old, new = (_logarithm(before), _logarithm(after)) if factor else (before, after)
    change = new.value - old.value
    low = change - _hypotenuse(new.value - new.low, old.high - old.value)
    high = change + _hypotenuse(new.high - new.value, old.value - old.low)
    threshold = log(1 + at_least) if factor else at_least
    if abs(change) < threshold:
        said: Change = "same"
    elif low > 0 or high < 0:
        said = "higher" if change > 0 else "lower"
    else:
        said = "same" if isfinite(low if change > 0 else high) else "unknown"
    return Difference(said, float(np.exp(low)) if factor else low, float(np.exp(high)) if factor else high)


def _logarithm(estimate: Estimate) -> Estimate:
    return Estimate(*(log(bound) if 0 < bound < inf else -inf if bound <= 0 else inf for bound in estimate))


def _hypotenuse(a: float, b: float) -> float:
    return sqrt(a * a + b * b)


def _half_width(part: Floats, whole: Floats) -> float:
    """Half the interval of ``sum(part) / sum(whole)``: infinite where there are too few blocks."""
    widest = 0.0
    if len(whole) < FEWEST_BLOCKS:
        return inf
    value = part.sum() / whole.sum()
    for size in _BLOCKS:
        first = np.arange(0, len(whole), size)
        count = len(first)
        if count < FEWEST_BLOCKS:
            break
        rest = np.add.reduceat(part - value * whole, first)
        error = sqrt(count / (count - 1) * float(rest @ rest)) / float(whole.sum())
        widest = max(widest, error * _quantile_of_t(count - 1))
    return widest


def _quantile_of_t(freedom: int) -> float:
    """Student's t at `CONFIDENCE`, two-sided, from the normal one (the first terms of its expansion)."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
