"""Kafka, PostgreSQL and Valkey on this machine, without Docker."""
