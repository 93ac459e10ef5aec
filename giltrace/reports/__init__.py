"""Results for people: the terminal."""
