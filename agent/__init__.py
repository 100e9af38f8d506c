"""One turn with a coding CLI. Imports only `sandbox` and `domain`; knows no store and no Temporal."""
