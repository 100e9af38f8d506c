"""Conversion between domain objects and rows, shared by both adapters."""
