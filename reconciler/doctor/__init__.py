"""The doctor: whether everything that a sweep needs is there, asked without writing anything."""
