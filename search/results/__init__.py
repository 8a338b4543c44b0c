"""What runs found, in numbers computed from their journals."""
