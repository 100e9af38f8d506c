"""Run git and parse its output."""
