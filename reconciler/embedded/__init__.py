"""Servers that run on this machine, with nothing installed before: for demo and tests."""
