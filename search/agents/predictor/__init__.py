"""Search by a predictor: fit it to what was evaluated, and evaluate what it holds most promising."""
