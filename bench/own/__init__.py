"""Tasks as users write them, one a module, for `make bench-tasks`; and those of `make chaos`."""
