"""Everything Kafka: clients, topics, the publisher, and the bridge from partitions to Celery tasks."""
