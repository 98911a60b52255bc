"""The demo: a simulated platform, the real backstop, and a verdict."""
