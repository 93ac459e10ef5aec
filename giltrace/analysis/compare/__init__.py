"""Recordings set against each other and against limits."""
