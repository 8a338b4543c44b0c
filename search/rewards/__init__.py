"""Terms of a reward, one file for each."""
