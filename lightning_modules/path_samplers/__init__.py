"""Which path of a supernet each step trains: one method a file."""
