"""Decisions: order, waiting, giving up and compensation. Effects are in `activities`."""
