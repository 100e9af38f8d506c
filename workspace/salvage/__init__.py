"""Keeping undelivered work."""
