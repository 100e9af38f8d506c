"""HTTP rules for all endpoints: authentication, limits, errors and idempotency."""
