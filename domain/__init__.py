"""What can happen and what is allowed: commands, events and deciders. Pure."""
