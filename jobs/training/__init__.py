"""One training: rows as numbers, the loop that every worker runs, what it goes on from."""
