"""What is read and written: thin I/O, with every write carrying the condition that makes it right."""
