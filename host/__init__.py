"""The parts of a worker process beside its activities: slots, leases, reports and clean-up."""
