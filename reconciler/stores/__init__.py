"""Reads and writes of tables. Every write is conditional on the state that justified it.

Every method that calls DynamoDB raises a ``TemporaryError`` or a ``PermanentError`` if the call
fails (see ``DynamoDB.call``). Docstrings mention only other errors, or what follows from one.
"""
