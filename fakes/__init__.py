"""Local stand-ins for the outside world, used by `orchestrator demo` and by the tests.

`fakes.github.server` stands in for GitHub; `fakes.anthropic.server` for the Anthropic Messages API.
"""
