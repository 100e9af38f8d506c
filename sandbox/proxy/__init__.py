"""The only way from the sandbox to the network: one HTTP proxy per job, served by the worker.

`server.serving` is the entrance. `inside` speaks HTTP with the job's programs, `outside` connects
to what `policy` allows, `model` puts Claude's credential in place, and `relay` copies bytes.
"""
