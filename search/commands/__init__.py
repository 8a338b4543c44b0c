"""The commands of catchmark, a file each."""
