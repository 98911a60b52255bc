"""Explains one orchestration as values, which the command line and Flower's pages render.

``find`` turns any id into an orchestration, ``look`` reads it, ``explain`` describes its state, and
pictures are drawn from ``graph``.
"""
