"""Measurements: what is fast is shown here, never asserted by a test."""
