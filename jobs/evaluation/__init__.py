"""What a model scores, and where it is weak."""
