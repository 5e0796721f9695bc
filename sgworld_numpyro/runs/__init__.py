"""Runs that last: sampled in stretches, each saved, resumed where they were left."""
