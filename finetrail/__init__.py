"""The composition root: settings, builders, the CLI and the embedded stack."""
