"""Terms of a reward, a file each."""
