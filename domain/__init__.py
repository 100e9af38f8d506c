"""Types and rules of the product, without I/O.

Every package may import from here. This package imports only the standard library.
"""
