"""Training in two stages: what is frozen, what is precomputed, and when the second stage is left out."""

import copy
import pickle
import signal
from contextlib import closing

import pytest
import torch

from datamodules.digit_scenes import DigitScenesSegmentation
from datamodules.encoded_crops import encode_crops
from lightning_modules.encoder_decoder import EncoderDecoderModule
from search.cli import main
from search.deploy import load_network
from search.evaluation import Proposal
from search.runs.journal import Journal
from search.spaces.fast_dense import PUBLISHED, FastDense
from search.tasks.two_stages import TwoStageTask

SPACE = FastDense()
ARCH = SPACE.parse(PUBLISHED["arch1"])
BUILD = SPACE.toy_build()


def scenes(**arguments):
    return DigitScenesSegmentation(**({"scenes": 8, "val_scenes": 2, "batch_size": 4} | arguments))


def task(**arguments):
    return TwoStageTask(
        SPACE,
        scenes(),
        EncoderDecoderModule,
        **({"crops": 8, "first_batch_size": 4, "build": BUILD, "threads": 1} | arguments),
    )


def test_the_second_stage_is_for_those_above_the_bound():
    both = task(first_epochs=2)
    whole = both.evaluate_one(Proposal(ARCH, seed=3))
    first = whole.metrics["first_stage"]
    assert whole.status == "ok" and whole.metrics["stages"] == 2 and len(whole.history) == 3
    stopped = both.evaluate_one(Proposal(ARCH, seed=3, stop_below=first + 1e-3))
    assert stopped.metrics["stages"] == 1 and stopped.score == stopped.metrics["first_stage"] == first
    assert stopped.history == whole.history[:2] and stopped.metrics["epochs"] == 2
    # A score that is as good as the bound goes on, and to the very same end.
    kept = both.evaluate_one(Proposal(ARCH, seed=3, stop_below=first))
    assert kept.score == whole.score and kept.metrics | {"epochs": 3} == whole.metrics | {"epochs": 3}
    # What is computed once is not sent to workers.
    assert both._encoded is not None and pickle.loads(pickle.dumps(both))._encoded is None


def test_only_the_decoder_learns_at_first():
    first = task(first_epochs=1)
    encoder = copy.deepcopy(first._encoder().state_dict())
    module = first._start_frozen(ARCH, 5)
    assert all(torch.equal(value, encoder[name]) for name, value in module.network.encoder.state_dict().items())
    module.train()
    assert not module.network.encoder.training and module.network.decoder.training
    loss, images = module.losses(next(iter(first._encoded_data().train_dataloader())))
    loss.backward()
    assert images == 4 and all(weight.grad is None for weight in module.network.encoder.parameters())
    # An encoder that is frozen in the graph gives the same maps as the precomputed ones.
    pictures = next(iter(scenes().train_dataloader()))
    plain, encoded = module.pictures.read(pictures), encode_crops(scenes(), module.network.encoder, 4)
    for one, other in zip(module.network.encoder(plain[0]), encoded.features, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(plain[1][:, ::4, ::4], encoded.labels)
    # Every child begins with this encoder, and with a decoder of its own.
    second = first._start_frozen(ARCH, 6)
    assert all(torch.equal(value, encoder[name]) for name, value in second.network.encoder.state_dict().items())
    assert not torch.equal(second.network.decoder.classifier.weight, module.network.decoder.classifier.weight)


def test_tricks_can_be_switched_off():
    module = EncoderDecoderModule(task().build_network(ARCH, 0), distillation=0.3, auxiliary=0.15)
    teacher = torch.nn.Conv2d(3, 11, 1).requires_grad_(False)
    encoded = encode_crops(scenes(), module.network.encoder, 4, teacher)
    batch = encoded.__getitems__([0, 1, 2, 3])
    assert batch["teacher"].shape == (4, 11, 16, 16)
    module.eval()
    logits, others = module.network.decoder.with_auxiliary(batch["features"])
    entropy = module.cross_entropy(logits, batch["labels"])
    expected = entropy + 0.15 * sum(module.cross_entropy(each, batch["labels"]) for each in others)
    scaled = torch.nn.functional.interpolate(logits, (16, 16), mode="bilinear")
    expected = expected + 0.3 * (scaled - batch["teacher"]).square().mean()
    torch.testing.assert_close(module.losses(batch)[0], expected)
    module.auxiliary = module.distillation = 0.0
    torch.testing.assert_close(module.losses(batch)[0], entropy)
    with pytest.raises(ValueError, match="a teacher teaches on precomputed crops"):
        task(precompute=False, teacher=teacher)


def test_without_precomputing_the_first_stage_reads_pictures():
    answer = task(first_epochs=1, precompute=False).evaluate_one(Proposal(ARCH, seed=1))
    assert answer.status == "ok" and answer.metrics["stages"] == 2


def test_crops_of_different_sizes_are_refused():
    class Growing(DigitScenesSegmentation):
        def train_dataloader(self):
            for size in (32, 64):
                yield torch.zeros(4, 3, size, size), torch.zeros(4, size, size, dtype=torch.long)

    with pytest.raises(ValueError, match="crops differ in size"):
        encode_crops(Growing(8, 2), task().build_network(ARCH, 0).encoder, 8)


RECIPE = """
description: Killed amid a search.
space: FastDense
targets:
  scenes:
    class_path: TwoStageTask
    init_args:
      data: {class_path: DigitScenesSegmentation, init_args: {scenes: 4, val_scenes: 2, batch_size: 4}}
      module: EncoderDecoderModule
      crops: 4
      first_epochs: 1
      threads: 1
      build: {width: 4, encoder: basicblock_4_1222}
agents: {stopping: {class_path: RunningMeanStop, init_args: {agent: RandomSearch, start: 1000, decay: 0, tolerance: 1}}}
budget: 5
"""


def evaluations(folder):
    with closing(Journal(folder / "journal.sqlite", writable=False)) as journal:
        (search,) = journal.searches()
        records = list(journal.records(search))
    return [(each.proposal, repr(each.evaluation.score), sorted(each.evaluation.metrics.items())) for each in records]


DIES = """
import os, signal, sys
from search.cli import main
from search.tasks.two_stages import TwoStageTask

evaluate, left = TwoStageTask.evaluate_one, iter(range(3))

def evaluate_or_die(self, proposal):
    if next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate(self, proposal)

TwoStageTask.evaluate_one = evaluate_or_die
main(sys.argv[1:])
"""


def test_a_killed_search_goes_on_exactly(server, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    recipe = tmp_path / "killed.yaml"
    recipe.write_text(RECIPE)
    words = ["run", str(recipe), "--quiet", "--runs"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    whole = evaluations(tmp_path / "whole" / "killed" / "latest")
    assert server.run(DIES, [*words, tmp_path / "part"]).returncode == -signal.SIGKILL
    folder = tmp_path / "part" / "killed" / "latest"
    assert evaluations(folder) == whole[:3]
    assert main(["run", "--resume", str(folder), "--quiet"]) == 0
    assert evaluations(folder) == whole
    # The rule was at work before and behind the kill: nobody reaches the first bound, and the next ones follow scores.
    stopped = [dict(metrics)["first_stage"] < proposal.stop_below for proposal, _, metrics in whole]
    assert [dict(metrics)["stages"] for *_, metrics in whole] == [1.0 if each else 2.0 for each in stopped]
    assert stopped[0] and not all(stopped) and all(proposal.stop_below < 200 for proposal, *_ in whole[1:])
    # What was found is trained whole, from the encoder that the search began with.
    assert main(["train", str(folder), "--epochs", "1", "--quiet"]) == 0
    network = load_network(folder)
    assert network(torch.zeros(1, 3, 64, 64)).shape[:2] == (1, 11)
