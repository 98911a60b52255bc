"""What is decided: pure functions over rows, with no clock, network, Celery or boto3 in them."""
