"""The tab *Orchestrations* in Flower: a list of what is stuck, and a page for each orchestration.

Flower has no access to the tables. The list comes from the state of sweeps in the broker, and a
page from a task that a worker answers (``workers.describe``). ``install`` adds the tab to Flower.
"""
