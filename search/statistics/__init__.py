"""Numbers about numbers: intervals, tests, rank correlations, Pareto fronts."""
