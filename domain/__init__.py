"""Words and rules of the product, without I/O.

Every room may import from here; this room imports nothing but the standard library.
"""
