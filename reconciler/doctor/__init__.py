"""The doctor: checks, without writing, everything that a sweep needs."""
