"""What a run has to say, as one HTML page: `pages` picks it, the other modules make its parts."""
