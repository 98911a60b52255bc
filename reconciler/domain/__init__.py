"""The decisions: pure functions over rows, without clock, network, Celery or boto3."""
