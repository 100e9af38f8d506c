"""Containment of Claude and of everything that works on a job's files.

Bubblewrap or Landlock around a command, the proxy that is its only way to the network, its limits,
and the safe way to open files that a job could have written. Imports only `domain`.
"""
