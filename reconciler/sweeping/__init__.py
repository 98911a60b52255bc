"""Sweeping: what a sweep reads, what is remembered between sweeps, and how far coverage reaches."""
