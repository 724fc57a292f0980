"""Settings: where they come from, how they are read, which combinations are valid."""
