"""What a recipe describes: a search experiment, or a study of supernets; planned, run, resumed."""
