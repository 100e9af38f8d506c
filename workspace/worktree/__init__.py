"""The files and the private repository of one job."""
