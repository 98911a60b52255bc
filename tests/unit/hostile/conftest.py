"""Sets the names of the tables, which the workers' module needs when it is imported."""

from __future__ import annotations

import os

for _name in ("ORCHESTRATION_TABLE_NAME", "TASK_TABLE_NAME", "TASK_EVENTS_TABLE_NAME"):
    os.environ.setdefault(_name, _name.lower())
