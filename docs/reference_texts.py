"""What the reference pages say beside what the code says (``docs.generate_reference``)."""

from __future__ import annotations

EXIT_CODES = {
    0: "done",
    1: "something is wrong with what was looked at: stuck work, or the backstop is unhealthy",
    2: "the call or the settings are wrong",
    3: "something that is needed cannot be reached or refuses us: broker, tables, credentials",
    130: "interrupted from the keyboard",
}

EXAMPLES = {
    "status": ("reconciler status", "reconciler status --json"),
    "list": (
        "reconciler list --needs-action",
        "reconciler list --code lost_release --older-than 1h -o name | xargs reconciler inspect",
        "reconciler list --recovered --since 6h",
    ),
    "inspect": ("reconciler inspect ENG-42", "reconciler inspect ENG-42 --format mermaid"),
    "sweep": (
        "reconciler sweep --wait",
        "reconciler sweep --inline --report",
        "reconciler sweep --full --wait",
    ),
    "evaluate": ("reconciler evaluate ENG-42", "reconciler evaluate ORCHESTRATION --report"),
    "release": ("reconciler release ENG-42", "reconciler release ORCHESTRATION CHILD"),
    "unskip": ("reconciler unskip ORCHESTRATION CHILD",),
    "pause": ('reconciler pause --reason "looking into ENG-42"',),
    "resume": ("reconciler resume",),
    "health": ("reconciler health", "reconciler health --self"),
    "doctor": ("reconciler doctor", "reconciler doctor --json"),
    "metrics": ("reconciler metrics",),
    "demo": ("reconciler demo --quick",),
}

_ERROR = ("error_kind", "detail")
_ACTION = (
    *("orchestration_id", "sub_issue_id", "code", "action", "outcome", "task_id"),
    *("stranded_seconds", "sweep_id", "detail"),
)

EVENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "orch.aws.lost": (
        "AWS cannot be reached, or refuses. Each process logs it once for each kind of error.",
        (),
    ),
    "orch.aws.restored": ("What had failed in an outage of AWS succeeds again.", ()),
    "orch.broker.lost": (
        "The broker is away or refuses commands; logged once for each outage.",
        (),
    ),
    "orch.broker.restored": ("The broker answers again.", ()),
    "orch.child.release_failed": (
        "A release failed, or the child was refused for good.",
        (*_ACTION, *_ERROR),
    ),
    "orch.child.released": ("A child was released.", (*_ACTION, "warnings")),
    "orch.complete": ("A repair finished the last child of an orchestration.", ()),
    "orch.evaluation.failed": (
        "An orchestration could not be evaluated; nothing of it was changed.",
        ("orchestration_id", *_ERROR, "sweep_id"),
    ),
    "orch.evaluation.incomplete": (
        "Something that an evaluation needs could not be read. What needs none of it was done.",
        ("orchestration_id", *_ERROR, "sweep_id"),
    ),
    "orch.heartbeat.unwritten": (
        "A worker or a beat cannot write its heartbeat, so `reconciler health --self` fails.",
        (),
    ),
    "orch.message.refused": (
        "A message was dropped: not ours, malformed, or about something that does not exist.",
        ("task", "message_id"),
    ),
    "orch.pipeline.name_refused": (
        "The pipeline accepts no execution name, so no invocation is repeated.",
        (),
    ),
    "orch.recoveries.unread": ("The search for lost recoveries failed.", ()),
    "orch.segment.unread": ("A segment of the table or index could not be read.", _ERROR),
    "orch.sweep.completed": (
        "A sweep ended. `error_id` is set if something failed or was not looked at.",
        (),
    ),
    "orch.sweep.failed": ("A sweep could not begin.", ()),
    "orch.sweep.recovered": ("A repair was made.", _ACTION),
    "orch.sweep.started": ("A sweep began.", ()),
    "orch.sweep.stuck": (
        "Something is stuck and was not repaired; once in each sweep.",
        (
            *("orchestration_id", "sub_issue_id", "code", "reason", "age_seconds", "task_id"),
            *("needs_action", "sweep_id"),
        ),
    ),
}
"""Event → when it is logged, and the fields that the call passes on from elsewhere."""

SUMMARY_FIELDS = {
    "sweep_id": "the sweep",
    "mode": "`repair`, `report` or `paused`",
    "complete": "false if a segment was not read to its end or a nomination was not evaluated",
    "segments": "how many segments the sweep asked for",
    "rows_scanned": "rows that the scan read",
    "orchestrations_scanned": "orchestrations that the scan read",
    "orchestrations_evaluated": "orchestrations that were read consistently and diagnosed",
    "released": "children released",
    "adopted": "children that were given a task that existed already",
    "advanced": "children set to `succeeded` or `failed`, as their task had ended",
    "skipped": "children skipped behind a failure",
    "claims_reset": "abandoned claims taken away",
    "refused": "children failed because their task was refused for good",
    "reinvoked": "pipelines invoked again",
    "nudged": "finished tasks touched, so that the live reconciler hears of them again",
    "errors": "what could not be read or written",
    "duration_seconds": "from its start to its end",
    "stuck": "object: code → how many are stuck after the sweep",
    "consumed": "object: `read_units`, `write_units`, `requests`",
    "planned": "only in a report: field → how many a repair would do",
}

_KEYS = {
    "orchestration_id": "partition key",
    "sub_issue_id": "sort key",
    "updated_at": "time of this write",
    "ttl": "when DynamoDB may delete the row (epoch seconds)",
}

ATTRIBUTES: dict[str, dict[str, str]] = {
    "OrchestrationTable: children": {
        **_KEYS,
        "child_status": "the new status",
        "child_task_id": "the task of the child, with a release or an adoption",
        "child_branch_name": "the branch of that task",
        "failure_reason": "why the task was refused for good, and what to do about it",
        "reconciler_effective_at": "when the new status had come about; restarts no grace",
        "reconciler_written_at": "`updated_at` of that write; if it differs, somebody wrote later",
    },
    "OrchestrationTable: meta rows": {
        **_KEYS,
        "rollup_posted_at": "removed when a child is set back to `blocked`",
    },
    "OrchestrationTable: rows of the reconciler's own": {
        **_KEYS,
        "failures": "how often repairs of this orchestration have failed in a row",
        "fingerprint": "changes with the orchestration's rows; a change ends the backoff",
        "last_error": "the last failure",
        "last_failed_at": "when that was",
        "retry_at": "the orchestration is left alone until then",
        "paused_at": "since when repairs are paused",
        "paused_by": "who paused them",
        "reason": "why",
        "reservations": "tasks of a user that were released and are not yet admitted",
        "waiting": "`waiting:<key>`: since when a child of the user waits for a slot",
        "state": "what sweeps without a broker remember",
    },
    "TaskEventsTable": {
        "task_id": "the task that the event concerns",
        "event_id": "a ULID, the same for every try of one repair",
        "event_type": "`task_created`, or `orchestration_recovered` for a repair",
        "metadata": "of a repair: ids, code, status before and after, sweep, seconds stranded",
        "timestamp": "when it was written",
        "ttl": "90 days ahead",
    },
    "TaskTable: new tasks": {
        "task_id": "a ULID, derived from the idempotency key",
        "user_id": "`platform_user_id` of the meta row",
        "status": "`SUBMITTED`",
        "status_created_at": "`SUBMITTED#<time>`, sort key of UserStatusIndex",
        "repo": "`owner/name`",
        "workflow_ref": "`coding/new-task-v1`",
        "resolved_workflow": "map: `id`, `version`",
        "task_description": "what the agent is told",
        "branch_name": "`bgagent/<task_id>/<slug>`",
        "idempotency_key": "orchestration, child and, for a retry, its earlier task",
        "channel_source": "`linear`, `jira`, `slack`, `api`, …",
        "channel_metadata": "the row's map, with the orchestration's ids on top",
        "linear_issue_id": "of the channel `linear`; `jira` has `jira_issue_identity`",
        "approval_gate_cap": "from RepoTable, else 50",
        "approval_gate_count": "0",
        "created_at": "when the task was created",
        "updated_at": "the same time",
        "reconciler_sweep_id": "the sweep that released it; marks the task as ours",
        "reconciler_invoked_at": "when the invocation was accepted",
        "reconciler_invoke_count": "1 once the invocation has been repeated",
    },
    "TaskTable: tasks that exist": {
        "reconcile_nudged_at": "when the task was last touched",
        "reconcile_nudge_count": "how often",
        "reconciler_invoked_at": "when the pipeline accepted an invocation of ours",
        "reconciler_invoke_count": "1 once the invocation has been repeated",
    },
}
"""Kind of row → attribute → meaning."""
