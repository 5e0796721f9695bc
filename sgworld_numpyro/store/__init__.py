"""The directory of a run that is saved in stretches: files written once each, and read without a model."""
