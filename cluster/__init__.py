"""Where work runs and where things are kept. Knows nothing of training or serving."""
