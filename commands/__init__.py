"""The subcommands of the `orchestrator` command."""
