"""What the commands of catchmark do."""
