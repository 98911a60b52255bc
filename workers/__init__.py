"""What is scheduled: the Celery application, and thin tasks over ``reconciler.operations``."""

from __future__ import annotations

from workers.app import app

__all__ = ["app"]
