"""The machines that take work."""
