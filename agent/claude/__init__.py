"""The protocol, files and environment of the Claude Code CLI."""
