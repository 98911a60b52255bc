"""Chaos: real processes, broken at random from a seed; ``make chaos MINUTES=… SEED=…``.

    two workers, three beats ── broker (Valkey) ── stopped, emptied, frozen, refusing, poisoned
       │  killed; clocks run ahead and back
       └── proxy ── DynamoDB Local      throttled, slow, torn, silent, wrong
       └── proxy ── the task pipeline   slow, torn, silent, wrong
    the platform runs in this process: it seeds and runs tasks, and its live reconciler comes,
    goes, and crashes during releases

An observer reads the tables from outside during the run. ``summary.py`` says what it must never
see, and how everything must end.

``test_losses.py`` repeats one kind of loss at a time (``make losses``). ``faults.py`` makes each
fault alone and records what the operator sees (``make faults``).
"""
