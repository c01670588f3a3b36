"""What answers: a version loaded for inference, as its trainer answered, and the batches that it gets."""
