"""The life of a fine-tuning job."""
