"""Settings of Celery, each with its reason; measured in ``docs/design.md``.

Celery on Redis is an engine, not a guarantee: messages can be lost and can run twice, and the
sweep over DynamoDB is what makes up for both.
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

# -- where

broker_url = _settings.celery_broker_url
result_backend = _settings.celery_result_backend
# Celery takes CELERY_BROKER_URL and CELERY_RESULT_BACKEND of the environment over the two above,
# as they are: without the login that is set apart (BROKER_PASSWORD). These it does not pass over.
broker_read_url = broker_write_url = broker_url
redis_username, redis_password = login_of(result_backend)
# Without them kombu does not verify the certificate of a rediss:// broker, the result backend
# refuses to start, and Flower cannot show the queues.
broker_use_ssl = tls_options(broker_url)
redis_backend_use_ssl = tls_options(result_backend)

# -- what is delivered again, and what is not

# A task is acknowledged when it has ended: work that a lost worker had begun is done again.
task_acks_late = True
# One task at a time for each process: fair when tasks differ, little to give back when one stops.
worker_prefetch_multiplier = 1
# Rejecting a task whose worker was lost would loop for ever on one that kills its worker; a retry
# is counted, and stops.
task_reject_on_worker_lost = False
task_retry_on_worker_lost = True
# Cancelling what runs when the connection is lost would lose it: it ends, and is delivered again.
worker_cancel_long_running_tasks_on_connection_loss = False
# A stored success of an earlier attempt must never make a later one be dropped.
worker_deduplicate_successful_tasks = False

# -- how long anything may take

task_time_limit = TIME_LIMIT_SECONDS
task_soft_time_limit = SOFT_TIME_LIMIT_SECONDS
# A soft shutdown is a plain sleep: it would only make each deployment longer.
worker_soft_shutdown_timeout = 0.0

_transport = {
    # The same for all who share the broker.
    "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
    # How often unacknowledged messages are looked at. By default it is every 100 s, and work of a
    # lost worker would wait for that besides the visibility timeout.
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    # Without time-outs a half-open connection consumes nothing for minutes, in silence.
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
# None: for ever. The default gives up after 100 attempts, and the backstop would be dead.
broker_connection_max_retries = None
# A publish that cannot be made fails soon: the sweep will come by again.
task_publish_retry = True
task_publish_retry_policy = {
    "max_retries": 1,
    "interval_start": 0.2,
    "interval_step": 0.2,
    "interval_max": 1.0,
}

# -- what is in a message, and who gets it

task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]
# Celery's own ends at a message of a shape that it does not expect, and so does the next worker.
worker_consumer = "workers.consumer:GuardedConsumer"
# A storm of releases must not keep a sweep from being run, and neither may keep a person waiting:
# each has a queue of its own. A worker serves all in turn, unless it is told otherwise (`-Q`).
# Each with a key of its own; else Celery gives all the default queue's, and what anybody sends
# by that exchange and key would go to all.
task_queues = tuple(
    Queue(name, routing_key=name) for name in (SWEEP_QUEUE, RELEASE_QUEUE, BY_HAND_QUEUE)
)
task_default_queue = SWEEP_QUEUE
task_routes = {RELEASE: {"queue": RELEASE_QUEUE}}
task_create_missing_queues = False

# -- results and events

# Only the sweep's result is of use afterwards; storing the others would cost a round trip each,
# and make a publish hang when the backend is away.
task_ignore_result = True
task_store_errors_even_if_ignored = False
result_expires = 3600
# Flower lives on these; the consumer publishes them together (`workers/consumer.py`).
worker_send_task_events = True
# An event for each message that is sent would be a round trip more for each release. Flower shows a
# task from when a worker has it; how many wait is the length of the queue.
task_send_sent_event = False
task_track_started = True

# -- beat

beat_scheduler = "workers.beat:SweepScheduler"
# The same sweep is asked for several times within its interval (``workers.enqueue``).
_ask_seconds = _settings.sweep_interval_seconds / ASKS_PER_INTERVAL
# Entries of your own go beside it; each beat sends them.
beat_schedule = {"sweep": {"task": SWEEP, "schedule": AskPoints(_ask_seconds)}}
# Never longer than the interval, so that a beat that has lost its broker is back in time.
beat_max_loop_interval = min(5.0, _ask_seconds)

# -- logs are ours (``reconciler.observability.logs``)

worker_hijack_root_logger = False
worker_redirect_stdouts = False
timezone = "UTC"
enable_utc = True
