"""Sweeps: what they read, what is remembered between them, and how far coverage reaches."""
