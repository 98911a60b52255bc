"""What is done: sweeps, evaluations and releases, made of pure decisions and thin I/O."""
