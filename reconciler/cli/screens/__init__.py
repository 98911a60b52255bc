"""Output for people, one module for each command that prints more than a line."""
