"""The page's colours: threads are not taken for states, nor for one another, whoever looks and in light and dark."""

from __future__ import annotations

import re
from importlib import resources
from itertools import combinations

import numpy as np
import pytest

#: Linear RGB to linear RGB as it is seen without long-wave and without middle-wave cones: Machado, Oliveira and
#: Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency", severity 1.
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
)
#: Linear RGB to XYZ of sRGB.
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

STATES = (
    "holding-running",
    "holding-runnable",
    "holding-blocked",
    "waiting",
    "off-running",
    "off-runnable",
    "off-blocked",
    "in-lock",
)
THREADS = tuple(f"thread-{at}" for at in range(8))
#: Distances in CIE Lab: about 2 is just seen.
FROM_STATES, FROM_STATES_BLIND, FROM_THREADS = 25.0, 11.0, 18.0


def theme(name: str) -> dict[str, np.ndarray]:
    """The colours of a theme in linear RGB, by the names that the style sheet gives them."""
    style = (resources.files("giltrace.reports.html") / "style.css").read_text()
    selector = {"light": r":root", "dark": r':root\[data-theme="dark"\]'}[name]
    block = re.search(rf"^{selector} \{{(.*?)^\}}", style, re.DOTALL | re.MULTILINE)
    assert block is not None
    found = re.findall(r"--([\w-]+): #([0-9a-f]{6});", block[1])
    return {key: linear(np.array([int(value[at : at + 2], 16) for at in (0, 2, 4)])) for key, value in found}


def linear(rgb: np.ndarray) -> np.ndarray:
    part = rgb / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt(np.maximum(XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089], 1e-6))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    low, high = sorted(float(XYZ[1] @ rgb) for rgb in (one, other))
    return (high + 0.05) / (low + 0.05)


def apart(one: np.ndarray, other: np.ndarray, seen: np.ndarray) -> float:
    return float(np.linalg.norm(lab(seen @ one) - lab(seen @ other)))


@pytest.mark.parametrize("name", ["light", "dark"])
def test_threads_are_not_taken_for_states(name: str) -> None:
    colours = theme(name)
    for thread in THREADS:
        for state in STATES:
            assert apart(colours[thread], colours[state], np.eye(3)) >= FROM_STATES, (thread, state)
            for seen in (PROTANOPIA, DEUTERANOPIA):
                assert apart(colours[thread], colours[state], seen) >= FROM_STATES_BLIND, (thread, state)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_threads_are_not_taken_for_one_another(name: str) -> None:
    colours = theme(name)
    for one, other in combinations(THREADS, 2):
        for seen in (np.eye(3), PROTANOPIA, DEUTERANOPIA):
            assert apart(colours[one], colours[other], seen) >= FROM_THREADS, (one, other)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_threads_stand_out_from_the_card_and_text_from_threads(name: str) -> None:
    colours = theme(name)
    for thread in THREADS:
        assert contrast(colours[thread], colours["card"]) >= 3, thread
        assert contrast(colours[thread], colours["on-thread"]) >= 4.5, thread


@pytest.mark.parametrize("name", ["light", "dark"])
def test_text_is_readable_on_card_and_page(name: str) -> None:
    colours = theme(name)
    for text in ("ink", "soft", "accent", "good", "bad"):
        for behind in ("card", "page"):
            assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
