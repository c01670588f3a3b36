"""What closes the loop: windows of production, drift, the decision to retrain, the gate. Holds no training code."""
