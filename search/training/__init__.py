"""What every training has in common, whichever network it is of."""
