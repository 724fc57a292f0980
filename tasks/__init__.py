"""The core: messages, the tables that store them, and the Celery task that stores a batch."""
