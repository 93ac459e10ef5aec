"""A timeline as a profile for the Firefox Profiler."""
