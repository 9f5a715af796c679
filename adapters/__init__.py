"""Everything that touches the outside: one file per port implementation."""
