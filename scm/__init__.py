"""The code host: pull requests on GitHub."""
