"""Repairs orchestrations: reads one again by its key, decides, and writes."""
