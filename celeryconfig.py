"""Celery's settings, each with its reason; ``docs/design.md`` has the measurements.

Celery on Redis guarantees nothing: a message can be lost, or run twice. The sweep over DynamoDB
makes up for both.
"""

from __future__ import annotations

from kombu import Queue

from reconciler.broker_url import login_of, tls_options
from reconciler.settings import load_settings
from workers.beat import AskPoints
from workers.limits import (
    SOFT_TIME_LIMIT_SECONDS,
    TIME_LIMIT_SECONDS,
    VISIBILITY_TIMEOUT_SECONDS,
)
from workers.names import (
    ASKS_PER_INTERVAL,
    BY_HAND_QUEUE,
    RELEASE,
    RELEASE_QUEUE,
    SWEEP,
    SWEEP_QUEUE,
)

_settings = load_settings()

# -- broker and result backend

broker_url = _settings.celery_broker_url
result_backend = _settings.celery_result_backend
# Celery prefers CELERY_BROKER_URL and CELERY_RESULT_BACKEND from the environment to the two above,
# and those lack the login from BROKER_PASSWORD. It does not override the following settings.
broker_read_url = broker_write_url = broker_url
redis_username, redis_password = login_of(result_backend)
# Without them kombu does not verify the certificate of a rediss:// broker, the result backend
# refuses to start, and Flower cannot show the queues.
broker_use_ssl = tls_options(broker_url)
redis_backend_use_ssl = tls_options(result_backend)

# -- redelivery

# A task is acknowledged when it ends, so if its worker is lost, another worker runs it again.
task_acks_late = True
# One task at a time per process: fair if tasks differ, and little to return when a worker stops.
worker_prefetch_multiplier = 1
# If a task kills its worker, rejecting it would repeat it for ever. Retries are counted, and stop.
task_reject_on_worker_lost = False
task_retry_on_worker_lost = True
# When the connection is lost, running tasks finish and are then delivered again. Cancelling them
# would lose their work.
worker_cancel_long_running_tasks_on_connection_loss = False
# The stored success of an earlier attempt must never cause a later one to be dropped.
worker_deduplicate_successful_tasks = False

# -- time limits

task_time_limit = TIME_LIMIT_SECONDS
task_soft_time_limit = SOFT_TIME_LIMIT_SECONDS
# A soft shutdown only sleeps, and would make each deployment longer.
worker_soft_shutdown_timeout = 0.0

_transport = {
    # The same for all processes that share the broker.
    "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
    # How often to look at unacknowledged messages. With the default of 100 s, the work of a lost
    # worker would wait that long in addition to the visibility timeout.
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    # Without timeouts, a half-open connection would silently consume nothing for minutes.
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
}
broker_transport_options = _transport
redis_socket_timeout = 5.0
redis_socket_connect_timeout = 5.0
redis_socket_keepalive = True
redis_backend_health_check_interval = 10
result_backend_transport_options = {"visibility_timeout": VISIBILITY_TIMEOUT_SECONDS}

# -- when the broker is away

broker_connection_retry_on_startup = True
# None: never give up. After the default of 100 attempts, the backstop would be dead.
broker_connection_max_retries = None
# A publish fails fast, because the next sweep finds the work again.
task_publish_retry = True
task_publish_retry_policy = {
    "max_retries": 1,
    "interval_start": 0.2,
    "interval_step": 0.2,
    "interval_max": 1.0,
}

# -- messages and queues

task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]
# Celery's own consumer dies of a malformed message, and so does the next worker that gets it.
worker_consumer = "workers.consumer:GuardedConsumer"
# Sweeps, releases and commands by hand have their own queues, so that many releases do not delay a
# sweep, and neither delays a person. A worker serves all queues in turn, unless `-Q` names some.
# Each queue has its own routing key. Otherwise all would have the default queue's key, and a
# message with that key would go to all of them.
task_queues = tuple(
    Queue(name, routing_key=name) for name in (SWEEP_QUEUE, RELEASE_QUEUE, BY_HAND_QUEUE)
)
task_default_queue = SWEEP_QUEUE
task_routes = {RELEASE: {"queue": RELEASE_QUEUE}}
task_create_missing_queues = False

# -- results and events

# Only the sweep's result is used later. Storing the others would cost a round trip each, and a
# publish would hang while the backend is away.
task_ignore_result = True
task_store_errors_even_if_ignored = False
result_expires = 3600
# Flower needs these events; the consumer publishes them in batches (`workers/consumer.py`).
worker_send_task_events = True
# An event per sent message would cost one more round trip per release. Flower shows a task once a
# worker has it; the length of the queue shows how many wait.
task_send_sent_event = False
task_track_started = True

# -- beat

beat_scheduler = "workers.beat:SweepScheduler"
# Beat asks for the same sweep several times within its interval (``workers.enqueue``).
_ask_seconds = _settings.sweep_interval_seconds / ASKS_PER_INTERVAL
# You can add entries of your own; every beat sends them.
beat_schedule = {"sweep": {"task": SWEEP, "schedule": AskPoints(_ask_seconds)}}
# Never longer than the interval, so that a beat that lost its broker is back in time.
beat_max_loop_interval = min(5.0, _ask_seconds)

# -- logs are ours (``reconciler.observability.logs``)

worker_hijack_root_logger = False
worker_redirect_stdouts = False
timezone = "UTC"
enable_utc = True
