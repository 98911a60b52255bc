"""The sub-commands, imported when they are called."""
