# One image for every command: init, serve, consume, retention, dead-letters.
FROM python:3.11-slim-bookworm AS build
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

FROM python:3.11-slim-bookworm
# procps: a liveness probe runs ps. redis-server: for a consumer pod without REDIS_URL.
# No tini: its command line would hold the word "consume" and satisfy the probe without any bridge. Process 1 is
# gunicorn or supervisord; both handle SIGTERM and reap.
RUN apt-get update \
    && apt-get install -y --no-install-recommends procps redis-server \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /venv /venv
WORKDIR /app
COPY VERSION ./
COPY tasks tasks
COPY bridge bridge
COPY api api
COPY bootstrap bootstrap
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["python", "-m", "bootstrap"]
