# syntax=docker/dockerfile:1
# One image for workers, beats, Flower and the one-shots: the same code everywhere. `make image`
# builds it. The base is named by tag: its digest could not be looked up when this was written. Pin it
# with --build-arg BASE=python:3.11-slim-bookworm@sha256:…
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
COPY requirements/runtime.txt /tmp/runtime.txt
# Every wheel is compared with the lock's digest; pip stays behind. So do botocore's descriptions of
# the services that are never called: 25 of its 31 MB (what is kept is held by a test).
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
# Compiled here: the file system is read-only later, and a health check starts a process a minute.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${BASE}
ARG COMMIT=""
ARG BUILT=""
LABEL org.opencontainers.image.title="orchestration-reconciler" \
      org.opencontainers.image.description="The backstop of an orchestration platform" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.created="${BUILT}"
# A number, so that Kubernetes' runAsNonRoot can tell that it is not root.
# A volume mounted at the directory takes its owner, so Flower can keep its list of tasks there.
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
# All that is written to. On Fargate, which has no tmpfs, the volume there takes on its permissions.
VOLUME /tmp
USER 10001
# Celery's warm shutdown; celery must be the process that gets it, so there is no shell before it.
STOPSIGNAL SIGTERM
# Whether this process is alive. It asks nothing about sweeps or the broker.
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=3 \
    CMD ["reconciler", "health", "--self"]
CMD ["celery", "-A", "workers", "worker"]
