"""The supervisor of one contained command, and its limits."""
