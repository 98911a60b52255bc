# syntax=docker/dockerfile:1
# One image for workers, beats, Flower and one-off commands. `make image` builds it. The base is
# named by tag. To pin its digest, use --build-arg BASE=python:3.11-slim-bookworm@sha256:…
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
COPY requirements/runtime.txt /tmp/runtime.txt
# pip compares every wheel with the digest in the lock. The image contains neither pip nor
# botocore's descriptions of services that are never called: 25 of its 31 MB. A test checks which
# services are kept.
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir \
    --disable-pip-version-check --require-hashes --only-binary :all: -r /tmp/runtime.txt \
 && find /opt/venv/lib/python3.11/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d \
    ! -name bedrock-runtime ! -name cognito-idp ! -name dynamodb ! -name lambda \
    ! -name signin ! -name sso ! -name sso-oidc ! -name sts -exec rm -r {} +
WORKDIR /app
COPY pyproject.toml ./
COPY *config.py ./
COPY reconciler ./reconciler
COPY workers ./workers
# Compiled now, because the file system is read-only later and each health check starts a process.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${BASE}
ARG COMMIT=""
ARG BUILT=""
LABEL org.opencontainers.image.title="orchestration-reconciler" \
      org.opencontainers.image.description="The backstop of an orchestration platform" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.created="${BUILT}"
# The user is a number, because Kubernetes' runAsNonRoot must see that it is not root. A volume that
# is mounted at the directory gets its owner, so Flower can keep its list of tasks there.
RUN useradd --uid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin reconciler \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/flower
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
COPY --chmod=0755 deploy/image/reconciler /usr/local/bin/reconciler
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RECONCILER_COMMIT=${COMMIT} \
    RECONCILER_BUILT=${BUILT}
# The only writable directory. Fargate has no tmpfs; a volume there gets these permissions.
VOLUME /tmp
USER 10001
# Starts Celery's warm shutdown. Celery must get the signal, so no shell runs before it.
STOPSIGNAL SIGTERM
# Checks only that this process is alive, not sweeps or the broker.
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=3 \
    CMD ["reconciler", "health", "--self"]
CMD ["celery", "-A", "workers", "worker"]
