"""Creating, restoring, removing and expiring worktrees."""
