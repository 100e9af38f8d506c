"""Supervision of a coding CLI as a child process, independent of its protocol."""
