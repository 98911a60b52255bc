"""What is read and written: thin I/O, with each write under the condition that makes it right."""
