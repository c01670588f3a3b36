"""Which answers are worth a true label, and the labels that people gave."""
