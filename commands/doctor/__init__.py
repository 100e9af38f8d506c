"""`orchestrator doctor`: what would keep a job from running here, one line each with the remedy.

`examination` looks at everything in turn. `isolation`, `programs` and `mcp_servers` try what works
inside the sandbox, by commands that `inside` runs there.
"""
