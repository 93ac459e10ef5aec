"""What threads would do without a GIL: their program, replayed."""
