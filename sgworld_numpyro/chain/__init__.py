"""A chain: its state, how it starts and advances, and what is looked at on the way."""
