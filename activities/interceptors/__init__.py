"""Interceptors of all activities: errors and heartbeats."""
