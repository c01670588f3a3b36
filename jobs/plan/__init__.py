"""What a training would ask for, before it runs."""
