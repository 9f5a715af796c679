"""What was said while a job ran, kept for ever as blobs."""
