"""The fake GitHub: REST and git over HTTP."""
