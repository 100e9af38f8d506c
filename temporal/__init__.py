"""The client side of Temporal: everything that calls the server from outside a workflow."""
