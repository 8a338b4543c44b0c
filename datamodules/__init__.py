"""Data sets as LightningDataModules, one file a family."""
