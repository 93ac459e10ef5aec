"""Other profilers' files, put on the clock of a recording."""
