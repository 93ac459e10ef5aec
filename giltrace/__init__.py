"""giltrace: who held the GIL, on which core, for how long, and what every other thread lost to it."""

__version__ = "0.1.0"

__all__ = ["__version__"]
