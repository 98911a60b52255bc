"""Chaos: real processes, broken on purpose, by seeded dice; ``make chaos MINUTES=… SEED=…``.

    two workers, three beats ── broker (Valkey) ── stopped, emptied, frozen, refusing, poisoned
       │  killed; clocks run ahead and back
       └── proxy ── DynamoDB Local      throttled, slow, torn, silent, wrong
       └── proxy ── the task pipeline   slow, torn, silent, wrong
    the platform, in this process, beside them: seeds, runs tasks, and its live reconciler
    comes, goes, and crashes in the midst of releases

An observer looks at the tables from outside all the while; what it must never see, and what must
have come right in the end, is in ``summary.py``.

One kind of loss at a time is in ``test_losses.py`` (``make losses``), and each fault alone, with
what the operator sees of it, in ``faults.py`` (``make faults``).
"""
