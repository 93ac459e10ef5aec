"""From events to the timeline: who held, wanted or did without the GIL, and on which core."""
