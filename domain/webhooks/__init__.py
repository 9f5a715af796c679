"""Webhooks: addresses of other systems that are told what happens."""
