"""Running git, and reading its answers."""
