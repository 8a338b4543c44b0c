"""What a supernet's shared weights learn, and how its paths are judged."""
