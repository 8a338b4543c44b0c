"""Training an encoder with a decoder: averages of weights, and means over pixels."""

import copy

import pytest
import torch
from pytorch_lightning import Trainer
from sklearn.metrics import confusion_matrix
from torch import nn
from torch.utils.data import DataLoader

from lightning_modules.encoder_decoder import EncoderDecoderModule
from lightning_modules.networks.fast_dense import EncoderDecoder
from lightning_modules.pixel_metrics import PixelTable

from .quiet_trainer import QUIET


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.classifier = nn.Conv2d(4, 2, 1)

    def forward(self, features):
        return self.classifier(features[0])

    def with_auxiliary(self, features):
        return self(features), []


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, images):
        return (self.norm(self.convolution(images)),)


def loader(batches=4):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4 * batches, 1, 8, 8, generator=generator)
    return DataLoader(list(zip(images, (images[:, 0] > 0).long(), strict=True)), batch_size=4)


def fitted(epochs, **arguments):
    torch.manual_seed(0)
    module = EncoderDecoderModule(EncoderDecoder(Encoder(), Decoder(), 2), **arguments)
    before = copy.deepcopy(module.network.state_dict())
    Trainer(max_epochs=epochs, **QUIET).fit(module, loader(), loader(1))
    return module, before


def test_it_learns():
    module, _ = fitted(12, decoder_learning_rate=0.05, encoder_learning_rate=0.05, polyak=0.5)
    assert module.trainer.callback_metrics["val_pixel_accuracy"] > 95


def test_averages_are_written_back_after_every_epoch():
    plain, start = fitted(1, polyak=0.0)
    averaged, _ = fitted(1, polyak=0.6)
    # Both take the same four steps; the average of the second is that of the first one's weights step by step.
    steps = []
    torch.manual_seed(0)
    module = EncoderDecoderModule(EncoderDecoder(Encoder(), Decoder(), 2), polyak=0.0)
    optimizers = [
        torch.optim.Adam(module.network.decoder.parameters(), lr=3e-3, weight_decay=1e-5),
        torch.optim.SGD(module.network.encoder.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-5),
    ]
    for batch in loader():
        loss, _ = module.losses(batch)
        module.zero_grad()
        loss.backward()
        for each in optimizers:
            nn.utils.clip_grad_norm_([w for group in each.param_groups for w in group["params"]], 3.0)
            each.step()
        steps.append({name: weight.detach().clone() for name, weight in module.network.named_parameters()})
    for name, weight in plain.network.named_parameters():
        torch.testing.assert_close(weight.detach(), steps[-1][name])
        expected = start[name]
        for step in steps:
            expected = 0.6 * expected + 0.4 * step[name]
        torch.testing.assert_close(dict(averaged.network.named_parameters())[name].detach(), expected)


def test_it_goes_on_from_a_checkpoint_exactly(tmp_path):
    whole, _ = fitted(3, polyak=0.8)
    part, _ = fitted(2, polyak=0.8)
    part.trainer.save_checkpoint(tmp_path / "part.ckpt")
    resumed = EncoderDecoderModule(EncoderDecoder(Encoder(), Decoder(), 2), polyak=0.8)
    trainer = Trainer(max_epochs=3, **QUIET)
    trainer.fit(resumed, loader(), loader(1), ckpt_path=tmp_path / "part.ckpt")
    weights = whole.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.state_dict().items())
    assert all(torch.equal(one, two) for one, two in zip(resumed._averages, whole._averages, strict=True))


def test_means_over_pixels_are_those_of_a_plain_count():
    generator = torch.Generator().manual_seed(1)
    labels, found = (torch.randint(4, (3, 20, 20), generator=generator) for _ in range(2))
    labels[labels == 3] = 255  # class 3 is found, but never there
    table = PixelTable(4, background=0)
    for k in range(3):
        table.update(found[k], labels[k])
    known = labels != 255
    plain = confusion_matrix(labels[known], found[known], labels=[0, 1, 2, 3])
    iou = [plain[k, k] / (plain[k].sum() + plain[:, k].sum() - plain[k, k]) for k in (1, 2)]
    accuracy = [plain[k, k] / plain[k].sum() for k in (1, 2)]
    shares = [plain[k].sum() / plain[1:].sum() for k in (1, 2)]
    weighted = sum(share * each for share, each in zip(shares, iou, strict=True))
    expected = [sum(iou) / 2, sum(accuracy) / 2, weighted]
    expected += [plain.trace() / plain.sum(), (expected[0] * expected[1] * expected[2]) ** (1 / 3)]
    assert [float(each) for each in table.compute().values()] == pytest.approx([100 * each for each in expected])
    nothing = PixelTable(2)
    nothing.update(torch.zeros(4, dtype=torch.long), torch.full((4,), 255))
    assert float(nothing.compute()["reward"]) == 0.0


def test_networks_without_the_parts_are_refused():
    with pytest.raises(ValueError, match="needs a network with 'encoder'"):
        EncoderDecoderModule(nn.Linear(1, 1))
    for name, value in {"polyak": 1.0, "decoder_learning_rate": 0.0, "auxiliary": -1.0}.items():
        with pytest.raises(ValueError, match=f"{name} is "):
            EncoderDecoderModule(EncoderDecoder(Encoder(), Decoder(), 2), **{name: value})
