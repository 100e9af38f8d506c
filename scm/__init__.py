"""The code host, which is GitHub."""
