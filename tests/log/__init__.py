"""What must hold of the log whatever happens: random commands against real servers, step by step."""
