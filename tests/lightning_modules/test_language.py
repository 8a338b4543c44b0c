"""Language modelling: the recipe as a plain loop, and perplexities with a known answer."""

import itertools
import math

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn
from torch.nn import functional

from datamodules.text import TextDataModule
from lightning_modules.language import LanguageModule
from lightning_modules.networks.supernet import Path
from lightning_modules.objectives.language import LanguageObjective
from search.spaces.head import Head
from search.spaces.recurrent import RecurrentCells
from tests.lightning_modules.quiet_trainer import QUIET

SPACE = RecurrentCells(3)
ARCH = SPACE.parse("tanh~0,relu~1,identity~1")


@pytest.fixture
def data(tmp_path):
    (tmp_path / "text.txt").write_text("".join("abcde"[k * k % 7 % 5] for k in range(400)))
    return TextDataModule(tmp_path / "text.txt", length=6, batch_size=4, held_out=0.2)


def network(data, hidden=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SPACE.build(ARCH, Head(data.num_classes), hidden)


def test_training_is_the_written_out_recipe(data):
    ours, plain = network(data), network(data)
    settings = {"learning_rate": 2.0, "weight_decay": 0.01, "activation_penalty": 0.1, "difference_penalty": 0.3}
    trainer = Trainer(max_epochs=2, gradient_clip_val=0.25, **QUIET)
    trainer.fit(LanguageModule(ours, **settings), datamodule=data)
    loader = data.train_dataloader()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        state, losses, count = None, 0.0, 0
        for words, following in loader:
            reading = plain.read(words, state)
            state = reading.states[:, -1].detach()
            loss = -reading.logits.log_softmax(2).gather(2, following.unsqueeze(2)).mean()
            losses, count = losses + float(loss.detach()), count + 1
            steps = reading.states[:, 1:] - reading.states[:, :-1]
            total = loss + 0.1 * (reading.states**2).mean() + 0.3 * (steps**2).mean()
            gradients = torch.autograd.grad(total, list(plain.parameters()))
            norm = torch.cat([each.flatten() for each in gradients]).norm()
            with torch.no_grad():
                for parameter, gradient in zip(plain.parameters(), gradients, strict=True):
                    clipped = gradient * min(1.0, 0.25 / (float(norm) + 1e-6))
                    parameter -= 2.0 * (clipped + 0.01 * parameter)
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert float(trainer.callback_metrics["train_loss"]) == pytest.approx(losses / count, rel=1e-4)
    assert count == 13


def test_the_perplexity_is_that_of_the_whole_text_read_once(data):
    module = LanguageModule(network(data))
    (result,) = Trainer(**QUIET).validate(module, datamodule=data, verbose=False)
    text = data.validation_set().words
    streams, each = 4, (len(text) - 1) // 6 // 4 * 6
    with torch.no_grad():
        logits = module.network(text[: streams * each].view(streams, each))  # at once, from states of zeros
        targets = text[1 : streams * each + 1].view(streams, each)
        loss = float(functional.cross_entropy(logits.flatten(0, 1), targets.flatten()))
    assert result["val_loss"] == pytest.approx(loss, rel=1e-5)
    assert result["val_perplexity"] == pytest.approx(math.exp(loss), rel=1e-5) == -result["val_negative_perplexity"]


def test_a_periodic_text_is_learnt(tmp_path):
    (tmp_path / "text.txt").write_text("abcab" * 200)  # what follows a and b depends on what stood before
    data = TextDataModule(tmp_path / "text.txt", length=10, batch_size=8)
    trainer = Trainer(max_epochs=20, gradient_clip_val=1.0, **QUIET)
    module = LanguageModule(
        network(data, 16), schedule="cosine", ema_decay=0.5, optimizer=lambda each: torch.optim.Adam(each, lr=0.05)
    )
    trainer.fit(module, datamodule=data)
    # Whoever knows one letter alone can't get below the perplexity of its conditional entropy.
    pairs = "abcab" * 2
    followers = {letter: [b for a, b in itertools.pairwise(pairs) if a == letter] for letter in "abc"}
    entropy = 0.0
    for letter, after in followers.items():
        shares = [after.count(other) / len(after) for other in set(after)]
        entropy -= "abcab".count(letter) / 5 * sum(share * math.log(share) for share in shares)
    assert float(trainer.callback_metrics["val_perplexity"]) < 0.95 * math.exp(entropy)


def test_the_objective_is_the_perplexity_of_all_words(data):
    supernet = SPACE.build_supernet(head=Head(data.num_classes), hidden=8)
    batches = [data.validation_set().__getitems__(each) for each in ([0, 1, 2], [3])]

    def run(words):
        return supernet(words, Path(ARCH))

    objective = LanguageObjective()
    judged = objective.score(run, batches)
    losses = [
        functional.cross_entropy(run(words).flatten(0, 1), following.flatten(), reduction="none")
        for words, following in batches
    ]
    mean = torch.cat(losses).mean()
    torch.testing.assert_close(judged.loss, mean)
    torch.testing.assert_close(judged.score, -mean.exp())
    torch.testing.assert_close(objective.loss(run, batches[0]), losses[0].mean())
    assert objective.images(batches[0]) == 3 and objective.first(batches[0], 2)[0].shape == (2, 6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"learning_rate": -1.0}, "learning_rate is -1.0"), ({"ema_decay": 1.0}, "ema_decay is 1.0")],
)
def test_wrong_settings_are_refused(data, settings, words):
    with pytest.raises(ValueError, match=words):
        LanguageModule(network(data), **settings)
    with pytest.raises(ValueError, match="trains language models, a Linear is none"):
        LanguageModule(nn.Linear(2, 2))
