"""Plain PyTorch networks; nothing here imports Lightning."""
