"""Retraining without forgetting."""
