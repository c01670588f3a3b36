"""Data: from a source to an immutable dataset version."""
