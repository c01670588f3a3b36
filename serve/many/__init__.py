"""Many models on one base that they share."""
