"""Is one version as good as another? On a holdout, on trial, on the labels of production."""
