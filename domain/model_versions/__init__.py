"""One trained version of a model: its files, its origin, its readiness."""
