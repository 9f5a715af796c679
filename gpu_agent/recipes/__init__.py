"""Training methods, one flat generator of facts a file."""
