"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click

_UNITS: Mapping[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,9})([smhd]?)")


class Duration(click.ParamType[float]):
    """A duration such as ``90s``, ``15m``, ``2h`` or ``1d``, converted to seconds."""

    name = "duration"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return seconds; fails, naming the value, if it is not a duration."""
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is not a duration such as 90s, 15m, 2h or 1d", param, ctx)
        return float(found[1]) * _UNITS[found[2] or "s"]


watch_option = click.option("--watch", is_flag=True, help="Show it again every 2 s, until Ctrl-C.")
report_option = click.option(
    "--report", is_flag=True, help="Say what would be done; change nothing."
)
