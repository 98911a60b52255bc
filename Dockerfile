# syntax=docker/dockerfile:1
# One image for workers, beats, Flower and the one-shots: the same code everywhere.

FROM python:3.11-slim-bookworm AS build
COPY requirements/runtime.txt /tmp/runtime.txt
# Every wheel is compared with the lock's digest; nothing of pip reaches the image below.
RUN python -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
    --require-hashes --only-binary :all: -r /tmp/runtime.txt

FROM python:3.11-slim-bookworm
# A number, so that Kubernetes' runAsNonRoot can tell that it is not root.
RUN useradd --uid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin reconciler
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY *config.py ./
COPY reconciler ./reconciler
COPY workers ./workers
RUN printf '#!/opt/venv/bin/python\nfrom reconciler.cli.main import main\nmain()\n' \
    > /usr/local/bin/reconciler \
 && chmod 0755 /usr/local/bin/reconciler
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001
# Celery's warm shutdown; celery must be the process that gets it, so there is no shell before it.
STOPSIGNAL SIGTERM
CMD ["celery", "-A", "workers", "worker"]
