"""Bare mirrors of the repositories."""
