"""What is shown of one orchestration, as values: each child, why it is stuck, what comes next.

The command line and Flower's pages render it. ``find`` turns any id into an orchestration, ``look``
reads it, ``explain`` says how it stands, and ``graph`` is what its pictures are drawn from.
"""
