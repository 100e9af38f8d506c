"""The supervisor of one contained command, and the limits it enforces."""
