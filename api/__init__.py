"""HTTP: what callers may ask, checked, and answered from the store; jobs are sent to Temporal."""
