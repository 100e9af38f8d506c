"""Git: mirrors, worktrees, commits, pushes and salvage. Nothing here depends on Temporal.

Claude runs under the same user id as these commands, and can change a job's repository. Its
configuration and hooks are therefore never trusted.
"""
