"""A run on disk, its folder, its journal and its files, and the life of its process."""
