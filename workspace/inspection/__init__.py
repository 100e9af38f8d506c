"""What a job did in its worktree."""
