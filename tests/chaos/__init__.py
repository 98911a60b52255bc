"""Chaos: real processes, broken on purpose, by seeded dice; ``make chaos MINUTES=… SEED=…``.

    two workers, two beats ─── broker (Valkey) ── stopped, emptied, frozen, its clients dropped
       │  killed; one host's clock runs ahead
       └── proxy ── DynamoDB Local      throttled, slow, torn, silent, wrong
       └── proxy ── the task pipeline   slow, torn, silent, wrong
    the platform, in this process, beside them: seeds, runs tasks, and its live reconciler
    comes, goes, and crashes in the midst of releases

An observer looks at the tables from outside all the while; what it must never see, and what must
have come right in the end, is in ``summary.py``.
"""
