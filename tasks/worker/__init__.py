"""The Celery worker: the application, the task that stores a batch, the heartbeat."""
