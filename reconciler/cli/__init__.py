"""What an operator types: commands over everything below, and what they print.

Nothing heavy is imported before a command needs it: ``reconciler --help`` and ``reconciler health``
are run by people in a hurry and by container health checks.
"""
