"""A network that was trained before, as the teacher of others."""

from __future__ import annotations

from torch import Tensor, nn

from search.deploy.network_folder import load_network


class FoundNetwork(nn.Module):
    """What ``catchmark train`` trained, frozen: images to what that network says of them. It is read on first use.

    Args:
        run: the run's folder, or that of the network itself.
        target: which of the run's targets; None for the only one that was trained.
    """

    def __init__(self, run: str, target: str | None = None):
        super().__init__()
        self.run, self.target = run, target
        self.network: nn.Module | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images ``[batch, channels, height, width]`` to the network's outputs.

        Raises:
            CatchmarkError: nothing was trained there.
        """
        if self.network is None:
            self.network = load_network(self.run, self.target).requires_grad_(False).to(images.device)
        return self.network(images)
