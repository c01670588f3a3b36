"""A prediction log replayed under several policies."""
