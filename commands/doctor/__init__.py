"""`orchestrator doctor`: checks that jobs can run on this host. Each problem names its remedy.

`examination` runs all checks. `isolation`, `programs` and `mcp_servers` check the sandbox with
commands that `inside` runs in it.
"""
