"""What could not be handled and was put aside: sent again, or given up."""
