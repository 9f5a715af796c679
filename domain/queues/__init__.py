"""The scheduler: who gets which work, and why."""
