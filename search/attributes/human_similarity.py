"""How alike an untrained network and human IT tell objects apart."""

from __future__ import annotations

from typing import Any

from torch import nn

from datamodules.stimuli import DIGITS, HUMAN_IT, load_stimuli
from lightning_modules.representations import represent
from lightning_modules.similarity import human_model_similarity
from search.attributes.network import NetworkAttribute
from search.spaces.base import SearchSpace
from search.spaces.head import head_of


class HumanSimilarity(NetworkAttribute):
    """Human-model similarity, HMS (Blanchard et al., CVPR 2019), of a network with random weights.

    The paper measures trained networks, as `HMSCallback` does. Normalisation layers take the statistics of the stimuli,
    for those of an untrained network are none.

    Args:
        space: builds the networks.
        build: arguments of `SearchSpace.build_from`, such as the width; None for its defaults.
        seed: of the weights, together with the architecture.
        device: where the network is.
        stimuli: an ``.npz`` file, or ``digits``, as `datamodules.stimuli.load_stimuli` takes them.
        reference: the array of dissimilarities that the network's are compared with.
        layers: names of modules whose outputs are compared; None as `lightning_modules.representations.represent`
            chooses.
        size: height and width of the pictures in pixels; None for those of the space's example.

    Raises:
        ValueError: an argument is out of range, or the stimuli are damaged.
        FileNotFoundError: there are no such stimuli.
    """

    name = "human-model similarity, untrained"

    def __init__(
        self,
        space: SearchSpace,
        build: dict[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
        stimuli: str = HUMAN_IT,
        reference: str = "human_it_average",
        layers: list[str] | None = None,
        size: list[int] | None = None,
    ):
        super().__init__(space, build, seed, device)
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"size is {size}, height and width in pixels are needed")
        self.layers, self.size = layers or [], size
        self.stimuli = load_stimuli(stimuli, reference)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Stimuli that are always there."""
        return {"stimuli": DIGITS}

    def read(self, network: nn.Module) -> float:
        """HMS of one network; NaN where its activations are not finite."""
        head, _ = head_of(self.build)
        height, width = self.size or self.space.example_input(head).shape[-2:]
        images = self.stimuli.batch(height, width, head.in_channels).to(self.device)
        # All at once: the statistics of a part of the stimuli would set its pictures apart from the others.
        activations = represent(network.train(), images, self.layers, batch_size=len(images))
        return human_model_similarity(activations, self.stimuli.reference)
