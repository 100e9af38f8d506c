"""Settings of Temporal."""

from __future__ import annotations

from settings.fields import Group, OptionalText, Port, Text, setting


class TemporalSettings(Group):
    """The Temporal server, or the ports of the server that `orchestrator up` starts."""

    title = "Temporal"

    address: OptionalText = setting(
        "TEMPORAL_ADDRESS",
        None,
        "Existing Temporal server, for `orchestrator api` and `orchestrator worker`",
    )
    namespace: Text = setting("TEMPORAL_NAMESPACE", "default", "Namespace on the server")
    port: Port = setting("TEMPORAL_PORT", "7233", "Port of the Temporal that `make up` starts")
    http_port: Port = setting(
        "TEMPORAL_HTTP_PORT", "7243", "Port of its HTTP API, which refuses every request"
    )
    ui_port: Port = setting("TEMPORAL_UI_PORT", "8233", "Port of its Web UI")
