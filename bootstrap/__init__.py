"""Starts processes: the command line, init, serve, consume, and the local stack."""
