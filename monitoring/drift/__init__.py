"""Has what the model sees changed? Tests, estimates, and pages of what moved."""
