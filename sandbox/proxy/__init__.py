"""The only network access of a sandbox: one HTTP proxy per job, served by the worker.

`server.serving` starts it. `inside` handles HTTP with the job's programs. `outside` connects to the
hosts that `policy` allows. `model` adds Claude's credential, and `relay` copies bytes.
"""
