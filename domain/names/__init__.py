"""Validation of names from outside: ids, branches and HTTP hosts."""
