"""One turn with a coding CLI. Imports only `sandbox` and `domain`: no store and no Temporal."""
