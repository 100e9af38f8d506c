"""The right to run a job on this host: admission, leases, and the fence of a cut-off host."""
