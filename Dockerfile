# One image for every command: init, serve, consume, retention, dead-letters.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY requirements.txt ./
# Without pip, because containers install nothing. Two codecs contain 25 MB of debug symbols.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils \
    && python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --no-compile --disable-pip-version-check -r requirements.txt \
    && strip --strip-debug /venv/lib/python*/site-packages/zstandard/*.so /venv/lib/python*/site-packages/lz4/*/*.so \
    && apt-get clean && rm -rf /var/lib/apt/lists/*

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="message-backend" \
      org.opencontainers.image.description="HTTP to Kafka to Celery to PostgreSQL: every message exactly once" \
      org.opencontainers.image.version="0.1.0"
# procps: a liveness probe runs ps. redis-server: for a consumer pod without REDIS_URL.
# No tini: its command line would contain the word "consume" and satisfy the probe without any bridge. Process 1 is
# gunicorn or supervisord; both handle SIGTERM and reap their children.
# No versions: Debian's archive has one version of each package, with all security fixes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends procps redis-server \
    && apt-get clean && rm -rf /var/lib/apt/lists/*
COPY --from=build /venv /venv
WORKDIR /app
COPY tasks tasks
COPY bridge bridge
COPY api api
COPY bootstrap bootstrap
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
# Compile everything that is imported, also Python's own library, which has no byte code. With a read-only root file
# system every process would compile it at every start.
RUN python -c "import bootstrap.commands.init, bootstrap.commands.serve, bootstrap.commands.consume, \
    bootstrap.commands.retention, bootstrap.commands.dead_letters, bootstrap.pod.listener, \
    supervisor.supervisord, gunicorn.arbiter, gunicorn.workers.gthread, celery.apps.worker, celery.bin.worker, \
    celery.concurrency.prefork, celery.worker.consumer, kombu.transport.redis, celery.loaders.app"
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8080 9100
ENTRYPOINT ["python", "-m", "bootstrap"]
