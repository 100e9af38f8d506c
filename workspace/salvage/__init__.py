"""Undelivered work that is kept."""
