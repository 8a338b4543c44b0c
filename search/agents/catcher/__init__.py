"""CATCH (Chen et al., ECCV 2020): a context encoder, a PPO controller and a network evaluator that learn to search."""
