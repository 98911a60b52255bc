# ruff: noqa: E501 - a table
"""The traps of Celery on Redis, each of them measured, and the tests that guard against them.

| trap | guarded by |
|---|---|
| 1 an expired or revoked id sent again | `test_delivery.py::test_an_expired_or_revoked_id_stays_usable` |
| 2 a reused id with a stored SUCCESS and a lost worker | `test_delivery.py::test_a_stored_success_drops_no_work` |
| 3 a stale SUCCESS is shown | the same |
| 4 an outage with a task in flight: the worker exits, is restarted, the work is redone | `test_broker_outage.py::test_a_worker_survives_an_outage_during_a_task`, `test_broker_outage.py::test_an_unguarded_worker_exits_during_an_outage` |
| 5 an outage with all slots busy | `test_broker_outage.py::test_a_worker_survives_an_outage_during_a_task` |
| 6 a half-open connection recovers, the sweep repairs the lost message | `test_broker_outage.py::test_a_worker_survives_a_half_open_connection` |
| 7 kill -9 of a child and of a worker: bounded redelivery | `test_delivery.py::test_the_task_of_a_killed_process_is_retried`, `test_delivery.py::test_the_task_of_a_killed_worker_is_redelivered` |
| 8 the same task twice at once | `test_delivery.py::test_simultaneous_releases_make_one_task` |
| 9 a poison task stops at its limit | `test_delivery.py::test_a_poison_task_stops_at_the_retry_limit` |
| 10 a publish with Redis down or stalled: a bounded error, the dedup key given back | `test_broker_outage.py::test_a_failed_publish_returns_its_dedup_key` |
| 11 the dedup key: expiry, a release by another, a retry, a lost worker | all of `test_dedup.py` |
| 12 the broker emptied: the next sweep rebuilds | `test_broker_outage.py::test_sweeps_resume_after_the_broker_is_emptied` |
| 13 a beat killed, a beat through an outage | the same |
| 14 every countdown below the visibility timeout | `test_options.py::test_every_wait_fits_the_visibility_timeout` |
| 15 SIGTERM within the stop timeout | `test_stopping.py::test_a_stopping_worker_finishes_its_current_task`, `test_stopping.py::test_a_worker_killed_while_stopping_loses_nothing`, `test_stopping.py::test_a_rolling_restart_loses_and_doubles_nothing` |
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_trap_names_existing_tests() -> None:
    rows = re.findall(r"^\| (\d+) .*? \| (.+) \|$", __doc__ or "", re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 16))
    for number, held_by in rows:
        named = re.findall(r"`(\w+\.py)(?:::(\w+))?`", held_by)
        assert named or held_by == "the same", number
        for file, test in named:
            text = (HERE / file).read_text(encoding="utf-8")
            assert f"def {test or 'test_'}" in text, f"{file}::{test}"
