"""The life of a dataset: bytes that were read once, and what is known of them."""
