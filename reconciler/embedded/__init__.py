"""Servers that run on this machine with nothing installed beforehand: for the demo and the tests."""
