"""Models of tables: how rows become numbers, and what three families of models make of them."""
