"""The texts of the reference pages that the code does not contain (``docs.generate_reference``)."""

from __future__ import annotations

EXIT_CODES = {
    0: "done",
    1: "work is stuck, the backstop is unhealthy, or a check failed",
    2: "the arguments or the settings are wrong",
    3: "the broker or AWS cannot be reached or denies access, or credentials are missing",
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
        "AWS cannot be reached, or denies a request. Each process logs each kind of error once.",
        (),
    ),
    "orch.aws.restored": ("Requests to AWS succeed again.", ()),
    "orch.broker.lost": (
        "The broker cannot be reached or refuses commands; logged once per outage.",
        (),
    ),
    "orch.broker.restored": ("The broker answers again.", ()),
    "orch.child.release_failed": (
        "A release failed, or the child's task was refused for good.",
        (*_ACTION, *_ERROR),
    ),
    "orch.child.released": ("A child was released.", (*_ACTION, "warnings")),
    "orch.complete": ("A repair finished the last child of an orchestration.", ()),
    "orch.evaluation.failed": (
        "An orchestration could not be evaluated. Nothing in it was changed.",
        ("orchestration_id", *_ERROR, "sweep_id"),
    ),
    "orch.evaluation.incomplete": (
        "An evaluation could not read all that it needs. It made the repairs that this allows.",
        ("orchestration_id", *_ERROR, "sweep_id"),
    ),
    "orch.heartbeat.unwritten": (
        "A worker or a beat cannot write its heartbeat; `reconciler health --self` then fails.",
        (),
    ),
    "orch.message.refused": (
        "A message was dropped: from another deployment, malformed, or about something unknown.",
        ("task", "message_id"),
    ),
    "orch.pipeline.name_refused": (
        "The pipeline rejects execution names, so no invocation is repeated.",
        (),
    ),
    "orch.recoveries.unread": ("The search for lost recoveries failed.", ()),
    "orch.segment.unread": ("A segment of the table or index could not be read.", _ERROR),
    "orch.sweep.completed": (
        "A sweep ended. `error_id` is set if something failed or was not checked.",
        (),
    ),
    "orch.sweep.failed": ("A sweep could not start.", ()),
    "orch.sweep.recovered": ("A repair was made.", _ACTION),
    "orch.sweep.started": ("A sweep started.", ()),
    "orch.sweep.stuck": (
        "Something is stuck and was not repaired; logged once per sweep.",
        (
            *("orchestration_id", "sub_issue_id", "code", "reason", "age_seconds", "task_id"),
            *("needs_action", "sweep_id"),
        ),
    ),
}
"""Event → when it is logged, and the fields that do not appear in the logging call itself."""

SUMMARY_FIELDS = {
    "sweep_id": "id of the sweep",
    "mode": "`repair`, `report` or `paused`",
    "complete": "false if a segment was not read to its end or a nomination was not evaluated",
    "segments": "segments to read",
    "rows_scanned": "rows read by the scan",
    "orchestrations_scanned": "orchestrations seen by the scan",
    "orchestrations_evaluated": "orchestrations read consistently and diagnosed",
    "released": "children released",
    "adopted": "children that got a task that already existed",
    "advanced": "children set to `succeeded` or `failed` because their task had ended",
    "skipped": "children skipped after a failure",
    "claims_reset": "abandoned claims reset",
    "refused": "children set to `failed` because their task was refused for good",
    "reinvoked": "tasks for which the pipeline was invoked again",
    "nudged": "finished tasks touched, so that the live reconciler hears of them again",
    "errors": "failed reads and writes",
    "duration_seconds": "how long the sweep took",
    "stuck": "object: code → number still stuck after the sweep",
    "consumed": "object: `read_units`, `write_units`, `requests`",
    "planned": "object: field → number that a repair would do; only in a report",
}

_KEYS = {
    "orchestration_id": "partition key",
    "sub_issue_id": "sort key",
    "updated_at": "when this was written",
    "ttl": "when DynamoDB may delete the row (epoch seconds)",
}

ATTRIBUTES: dict[str, dict[str, str]] = {
    "OrchestrationTable: children": {
        **_KEYS,
        "child_status": "the new status",
        "child_task_id": "the child's task, written by a release or an adoption",
        "child_branch_name": "the branch of that task",
        "failure_reason": "why the task was refused for good, and what to do about it",
        "reconciler_effective_at": "when the new status took effect; the grace counts from then",
        "reconciler_written_at": "equals `updated_at` until somebody else writes the row",
    },
    "OrchestrationTable: meta rows": {
        **_KEYS,
        "rollup_posted_at": "removed when a child is set back to `blocked`",
    },
    "OrchestrationTable: rows of the reconciler's own": {
        **_KEYS,
        "failures": "how often repairs of this orchestration have failed in a row",
        "fingerprint": "a hash of the orchestration's rows; when it changes, the backoff ends",
        "last_error": "the last failure",
        "last_failed_at": "when the last repair failed",
        "retry_at": "when repairs are tried again",
        "paused_at": "when repairs were paused",
        "paused_by": "who paused them",
        "reason": "why they were paused",
        "reservations": "a user's released tasks that the platform has not admitted yet",
        "waiting": "`waiting:<key>`: since when one of the user's children has waited for a slot",
        "state": "what sweeps in cron mode remember",
    },
    "TaskEventsTable": {
        "task_id": "the task that the event is about",
        "event_id": "a ULID, the same for every attempt at one repair",
        "event_type": "`task_created`, or `orchestration_recovered` for a repair",
        "metadata": "for a repair: ids, code, status before and after, sweep, seconds stranded",
        "timestamp": "when the event was written",
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
        "task_description": "the agent's instructions",
        "branch_name": "`bgagent/<task_id>/<slug>`",
        "idempotency_key": "made of orchestration, child and, for a retry, the earlier task",
        "channel_source": "`linear`, `jira`, `slack`, `api`, …",
        "channel_metadata": "the map of the child's row, with the orchestration's ids set in it",
        "linear_issue_id": "only for `linear`; `jira` has `jira_issue_identity` instead",
        "approval_gate_cap": "from RepoTable; 50 by default",
        "approval_gate_count": "0",
        "created_at": "when the task was created",
        "updated_at": "the same as `created_at`",
        "reconciler_sweep_id": "the sweep that released it; marks the reconciler's own tasks",
        "reconciler_invoked_at": "when the pipeline accepted the invocation",
        "reconciler_invoke_count": "1 once the invocation has been repeated",
    },
    "TaskTable: tasks that exist": {
        "reconcile_nudged_at": "when the task was last touched",
        "reconcile_nudge_count": "how often it was touched",
        "reconciler_invoked_at": "when the pipeline accepted the reconciler's invocation",
        "reconciler_invoke_count": "1 once the invocation has been repeated",
    },
}
"""Kind of row → attribute → meaning."""
