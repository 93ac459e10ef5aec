"""Reading another process: its memory, the objects loaded in it, the interpreter's layout, its threads' names."""
