"""Servers for demo and tests that run locally without prior installation."""
