"""A model on disk: the base, what is published of it, loaded again, adopted, made once more."""
