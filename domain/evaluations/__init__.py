"""Base against fine-tuned on the same held-out rows."""
