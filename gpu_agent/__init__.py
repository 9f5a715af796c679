"""Takes work, trains, evaluates, serves and reports. The only package that loads torch."""
