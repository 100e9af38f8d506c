"""The REST API: it reads the store, and starts, updates and cancels workflows."""
