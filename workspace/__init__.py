"""Git: mirrors, worktrees, locks, credentials, commit, push and salvage.

Nothing in here knows Temporal. What runs as Claude shares the user id and the mirror with these
commands, so nothing that stands in a repository's configuration or hooks is ever trusted.
"""
