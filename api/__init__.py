"""Everything HTTP: publishing and reading messages, health."""
