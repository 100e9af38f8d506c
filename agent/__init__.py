"""The Claude Code process: executable, command line, environment, stream-JSON, supervision.

Knows nothing of jobs' rows, of git or of Temporal; imports only `domain` and the standard library.
"""
