"""The outcome of `giltrace check`, for people, for programs and for what continuous integration shows."""
