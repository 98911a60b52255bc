"""The command line.

Heavy modules are imported only when a command needs them: people in a hurry and container health
checks run ``reconciler --help`` and ``reconciler health``.
"""
