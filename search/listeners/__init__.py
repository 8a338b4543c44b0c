"""Who hears of a run while it goes on: the progress bar, Weights & Biases."""
