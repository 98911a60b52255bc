"""``python -m benchmarks`` (``make bench ARGS=…``)."""

from __future__ import annotations

from benchmarks.command import bench

bench(prog_name="python -m benchmarks")
