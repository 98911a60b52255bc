"""What a person reads on a terminal: one module for each command that has more than a line."""
