"""Pixels of picture files: whole, upright, of known values."""
