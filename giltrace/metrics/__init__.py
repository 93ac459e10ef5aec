"""Counters of the GIL and of locks, as they stand: always on, for dashboards and alerts."""
