"""A timeline as a Perfetto trace."""
