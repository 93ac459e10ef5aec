"""The live view: a model of the last minute, and the screen that shows it."""
