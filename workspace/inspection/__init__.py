"""Finding out what a job did in its worktree."""
