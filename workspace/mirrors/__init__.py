"""The bare mirror of each repository."""
