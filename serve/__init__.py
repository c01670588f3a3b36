"""What stays up: the HTTP application, the engine behind it, the prediction log's writer, the swap of champions."""
