"""Commands in, events out; reactions; the scheduler."""
