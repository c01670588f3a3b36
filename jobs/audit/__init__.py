"""The quality audit of a dataset."""
