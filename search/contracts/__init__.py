"""What every plugin promises, as plain functions: tests run them on ours, ``catchmark check`` on a user's own."""
