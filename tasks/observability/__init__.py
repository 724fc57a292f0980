"""Events of the log, metrics, and traces."""
