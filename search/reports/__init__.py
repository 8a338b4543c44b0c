"""What a run has to say, as one HTML page: `report` puts it together, the other modules make its parts."""
