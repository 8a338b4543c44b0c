"""What a network takes: operations, parameters, and milliseconds."""
