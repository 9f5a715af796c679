"""A named line of model versions and what is in service of it."""
