"""What is known of an architecture before anybody pays for an evaluation, one file a kind."""
