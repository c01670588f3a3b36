"""What was answered: spools, the tables of the prediction log, questions to them."""
