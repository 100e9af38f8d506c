"""Local stand-ins for the outside world, used by `orchestrator demo` and by the tests.

`demo.forge` stands in for GitHub; `demo.model` stands in for the Anthropic Messages API.
"""
