"""Trains one network: plain networks in `networks/`, LightningModules beside them."""
