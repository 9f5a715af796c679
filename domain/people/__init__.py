"""People: who the log speaks of, and who of them it is to forget."""
