"""The demonstration: the platform simulated, the real backstop beside it, and a verdict."""
