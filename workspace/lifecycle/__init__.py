"""The life of a worktree: creation, restoring, removal and expiry."""
