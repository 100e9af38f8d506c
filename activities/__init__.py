"""Temporal activities, one class per external system. Every activity is idempotent.

Each activity takes one `<Verb>Input` and returns one `<Verb>Result` or None. They contain ids,
counts, commits and short texts. Prompts, messages and Claude's output go through the store and
never through Temporal. Activities that act on a host for a running job carry its lease.
"""
