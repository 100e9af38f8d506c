"""Containment of Claude and of everything that works on a job's files.

Runs a command in Bubblewrap or Landlock, with limits and a proxy as its only network access. Opens
files safely that a job could have written. Imports only `domain`.
"""
