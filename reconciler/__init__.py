"""The backstop of the orchestration platform: finds stranded work and releases it exactly once."""
