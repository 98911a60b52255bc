"""What is read and written in tables. Every write is conditional on the state that justified it."""
