"""Simulation: the real code against a deterministic DynamoDB, in every order of its store calls."""
