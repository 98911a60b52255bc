"""What is read and written in tables. Every write is conditional on the state that justified it.

Whatever asks DynamoDB raises a ``TemporaryError`` or a ``PermanentError`` where there is no answer
to be had (``DynamoDB.call``). That is so of its callers too: a docstring names only what else is
raised, or what such an error leaves behind.
"""
