"""Tamper evidence: the key, the verification of the log, evidence bundles."""
