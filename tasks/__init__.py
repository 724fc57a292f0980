"""The core: what a message is, how it is stored, and the Celery task that stores it."""
