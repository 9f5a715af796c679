"""Links to bytes that are good for a while for whoever holds them."""
