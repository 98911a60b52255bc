"""What is shown: logs and metrics."""
