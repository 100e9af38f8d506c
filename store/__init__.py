"""The database. Rows stay in this package; callers get the types of `domain`."""
