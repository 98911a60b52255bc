# ruff: noqa: E501 - a table
"""The traps of Celery on Redis, each measured before a line was written; and what holds each.

| trap | held by |
|---|---|
| 1 an expired or revoked id sent again | `test_delivery.py::test_an_expired_or_revoked_id_stays_usable` |
| 2 a reused id with a stored SUCCESS and a lost worker | `test_delivery.py::test_a_stored_success_makes_nobody_drop_work_or_show_it_as_done` |
| 3 a stale SUCCESS is shown | the same |
| 4 an outage with a task in flight: the worker exits, is restarted, the work is redone | `test_broker_outage.py::test_a_worker_outlives_an_outage_with_a_task_in_flight`, `test_broker_outage.py::test_without_the_guard_the_worker_exits_and_a_supervisor_is_needed` |
| 5 an outage with all slots busy | `test_broker_outage.py::test_a_worker_outlives_an_outage_with_a_task_in_flight` |
| 6 a half-open connection recovers, the sweep repairs the lost message | `test_broker_outage.py::test_a_half_open_connection_recovers_and_the_sweep_makes_up_for_what_it_lost` |
| 7 kill -9 of a child and of a worker: bounded redelivery | `test_delivery.py::test_the_work_of_a_killed_child_is_tried_again_within_seconds`, `test_delivery.py::test_the_work_of_a_killed_worker_is_delivered_again_after_the_visibility_timeout` |
| 8 the same task twice at once | `test_delivery.py::test_the_same_release_twice_at_once_makes_one_task` |
| 9 a poison task stops at its limit | `test_delivery.py::test_a_task_that_kills_its_worker_stops_at_its_limit_and_the_others_go_on` |
| 10 a publish with Redis down or stalled: a bounded error, the dedup key given back | `test_broker_outage.py::test_a_publish_that_cannot_be_made_fails_soon_and_gives_its_key_back` |
| 11 the dedup key: expiry, a release by another, a retry, a lost worker | all of `test_dedup.py` |
| 12 the broker emptied: the next sweep rebuilds | `test_broker_outage.py::test_beats_go_on_and_an_emptied_broker_is_filled_by_the_next_sweep` |
| 13 a beat killed, a beat through an outage | the same |
| 14 every countdown below the visibility timeout | `test_options.py::test_every_wait_is_shorter_than_what_it_must_not_outlast` |
| 15 SIGTERM within the stop timeout | `test_stopping.py::test_a_worker_that_is_told_to_stop_ends_what_it_has_begun_and_gives_the_rest_back`, `test_stopping.py::test_a_worker_that_is_stopped_for_good_in_the_midst_of_a_task_loses_nothing`, `test_stopping.py::test_all_workers_and_beats_are_replaced_under_load_and_nothing_is_lost_or_doubled` |
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_each_of_the_fifteen_traps_is_held_by_tests_that_exist() -> None:
    rows = re.findall(r"^\| (\d+) .*? \| (.+) \|$", __doc__ or "", re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 16))
    for number, held_by in rows:
        named = re.findall(r"`(\w+\.py)(?:::(\w+))?`", held_by)
        assert named or held_by == "the same", number
        for file, test in named:
            text = (HERE / file).read_text(encoding="utf-8")
            assert f"def {test or 'test_'}" in text, f"{file}::{test}"
