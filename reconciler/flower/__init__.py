"""The tab *Orchestrations* in Flower: a list of what is stuck, and a page for each orchestration.

Flower has no rights on the tables. The list comes from what sweeps leave in the broker, and a page
from a task that a worker answers (``workers.describe``). ``install`` puts the tab into Flower.
"""
