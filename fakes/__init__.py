"""Local replacements for external services, used by `orchestrator demo` and the tests.

`fakes.github.server` replaces GitHub. `fakes.anthropic.server` replaces the Anthropic Messages API.
"""
