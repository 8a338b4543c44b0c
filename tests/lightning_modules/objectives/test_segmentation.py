from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_modules.networks.supernet import Path, PathModule, Supernet
from lightning_modules.objectives.segmentation import SegmentationObjective
from lightning_modules.path_samplers.uniform import UniformSampler
from lightning_modules.supernet import SupernetModule, evaluate_paths
from search.spaces.base import Decision, SearchSpace


class Coin(SearchSpace):
    """Whether a convolution sees a pixel or its neighbours alone."""

    name, decisions = "coin", (Decision("kernel", ("pixel", "neighbours")),)

    def build(self, architecture, **head):
        raise NotImplementedError


class Convolution(PathModule):
    def __init__(self, selection):
        super().__init__(selection)
        self.pixel, self.blind = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        if self.selection.path.choices[0] == 0:
            return self.pixel(x)
        weight = self.blind.weight * (torch.arange(9).view(3, 3) != 4)  # the centre is hidden
        return nn.functional.conv2d(x, weight, self.blind.bias, padding=1)

    def standalone_state(self, choices):
        return {}


def sample(labels):
    return SimpleNamespace(gt_sem_seg=SimpleNamespace(data=labels.unsqueeze(0)))


def coloured(seed, count=4, size=8):
    """Pixels of random classes, each in its class' colour; some unlabelled."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(3, (count, size, size), generator=generator)
    images = nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2).float()
    known = torch.rand(classes.shape, generator=generator) > 0.2
    return images, torch.where(known, classes, 255)


def as_mmseg(images, labels):
    """The same as mmseg has it: blue, green, red from 0 to 255, without the corner of the first image."""
    pictures = [(255 * image.flip(0)).byte() for image in images]
    return {"inputs": pictures, "data_samples": [sample(each) for each in labels]}


@pytest.mark.parametrize("batch_of", [lambda *pair: pair, as_mmseg], ids=["tensors", "mmseg"])
def test_shared_weights_learn_to_label_pixels_and_tell_which_path_can(batch_of):
    objective = SegmentationObjective(mean=(0, 0, 0), std=(255, 255, 255))
    torch.manual_seed(0)
    module = SupernetModule(Supernet(Convolution), UniformSampler(Coin(), 1, 1, 1), objective=objective)
    optimizer = torch.optim.SGD(module.supernet.parameters(), lr=1.0)
    for step in range(100):
        optimizer.zero_grad()
        module.path_loss(Path((step % 2,)), batch_of(*coloured(step))).backward()
        optimizer.step()
    able, blind = evaluate_paths(module, [(0,), (1,)], [batch_of(*coloured(1000)), batch_of(*coloured(1001, 2))])
    assert able.score == 100 and able.loss < 0.2
    assert blind.score < 50 and blind.loss > 1


def test_the_score_is_the_mean_intersection_over_union_of_all_pixels():
    generator = torch.Generator().manual_seed(0)
    objective = SegmentationObjective()
    batches = [
        (torch.randn(2, 4, 5, 6, generator=generator), torch.randint(3, (2, 5, 6), generator=generator)),
        (torch.randn(1, 4, 5, 6, generator=generator), torch.full((1, 5, 6), 255)),
        (torch.randn(3, 4, 5, 6, generator=generator), torch.randint(3, (3, 5, 6), generator=generator)),
    ]
    logits, labels = (torch.cat(each) for each in zip(*batches, strict=True))
    known, found = labels != 255, logits.argmax(1)
    shares = []
    for label in range(4):
        truth, said = (labels == label) & known, (found == label) & known
        if (truth | said).any():
            shares.append(float((truth & said).sum() / (truth | said).sum()))
    judged = objective.score(lambda images: images, batches)
    assert float(judged.score) == pytest.approx(100 * sum(shares) / len(shares), rel=1e-5)
    assert float(judged.loss) == pytest.approx(float(nn.functional.cross_entropy(logits, labels, ignore_index=255)))
    assert float(objective.loss(lambda images: images, batches[1])) == 0


def test_mmsegs_images_are_normalised_padded_and_turned_to_red_green_blue():
    objective = SegmentationObjective(mean=(1, 2, 3), std=(1, 2, 4))
    pictures = [torch.full((3, 2, 2), 7, dtype=torch.uint8), torch.full((3, 1, 3), 3, dtype=torch.uint8)]
    batch = {"inputs": pictures, "data_samples": [sample(torch.zeros(2, 2)), sample(torch.ones(1, 3))]}
    seen = []

    def network(images):
        seen.append(images)
        return torch.zeros(2, 2, 1, 1)  # coarser than the labels

    assert float(objective.loss(network, batch)) == pytest.approx(0.6931, abs=1e-4)
    (images,) = seen
    assert images.shape == (2, 3, 2, 3) and images[0, :, 0, 0].tolist() == [6, 2.5, 1]
    assert images[0, :, 0, 2].tolist() == [0, 0, 0] and images[1, :, 0, 2].tolist() == [2, 0.5, 0]
    assert objective.images(batch) == 2
    assert objective.images(objective.first(batch, 1)) == 1
