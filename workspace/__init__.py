"""Git: mirrors, worktrees, locks, credentials, commits, pushes and salvage.

This package does not use Temporal. Claude's processes run under the same user id and can read the
mirror, so a repository's configuration and hooks are never trusted.
"""
