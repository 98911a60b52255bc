"""Repairing: takes an orchestration by its key, reads it again, decides, and writes."""
