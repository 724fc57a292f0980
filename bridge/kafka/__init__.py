"""Everything that knows a Kafka client."""
