"""Digits that are seen and heard: scikit-learn's pictures, made noisy, with recordings of people who say them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from datamodules.archives import find_archive
from datamodules.pairs import SPLITS, Pairs, pair_by_label

SPEAKERS = 6


@dataclass(frozen=True)
class SpokenWrittenDigits:
    """How pairs of a picture and a sound are made.

    Attributes:
        sound: the Free Spoken Digit Dataset as an ``.npz`` file: ``log_mel`` uint8 ``[n, 64, 64]``, ``label`` and
            ``speaker``. Where it is not at hand, the left and the right half of each picture are the two modalities.
        noise: standard deviation of normal noise on the pictures, whose pixels are 0 to 1.
        test_speaker: the one of the speakers, from 0, whose recordings are for the test.
        val_speaker: the one whose recordings are for the validation; the other four are trained on.
        counts: pairs of each split.
        seed: of the division of the pictures, of the noise and of the pairs.

    Raises:
        ValueError: a number is out of range.
    """

    sound: str = "spoken_digits.npz"
    noise: float = 0.5
    test_speaker: int = 5
    val_speaker: int = 4
    counts: tuple[int, int, int] = (3000, 1000, 1000)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what can't be made."""
        speakers = {self.test_speaker, self.val_speaker}
        if len(speakers) != 2 or not speakers <= set(range(SPEAKERS)):
            raise ValueError(
                f"test_speaker is {self.test_speaker} and val_speaker {self.val_speaker}, two different ones of 0 to "
                f"{SPEAKERS - 1} are needed"
            )
        if self.noise < 0 or len(self.counts) != 3 or min(self.counts) < 1:
            raise ValueError(
                f"noise is {self.noise} and counts {list(self.counts)}, at least 0 and three of at least 1"
            )

    def load(self) -> tuple[dict[str, Pairs], str]:
        """The splits, and in words what the modalities are."""
        pictures, written = self._pictures()
        sounds = self._sounds()
        if sounds is None:
            told = "left and right halves of digit images: there is no file of spoken digits"
            warnings.warn_explicit(f"{told} '{self.sound}'", UserWarning, "data", 0)
        else:
            told = f"spoken digits and digit images; held out: speaker {self.val_speaker}, tested: {self.test_speaker}"
        splits = {}
        for number, split in enumerate(SPLITS):
            seen, labels, count = pictures[split], written[split], self.counts[number]
            if sounds is None:
                chosen, _ = pair_by_label(labels, labels, count, self.seed + number)
                pairs = np.stack([chosen[:, 0]] * 2, axis=1)
                splits[split] = Pairs(seen[..., :4], seen[..., 4:], pairs, labels[chosen[:, 0]])
            else:
                heard, spoken = sounds[split]
                splits[split] = Pairs(heard, seen, *pair_by_label(spoken, labels, count, self.seed + number))
        return splits, told

    def _pictures(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Noisy pictures, float32 ``[n, 1, 8, 8]``, three fifths to train on and one fifth each held out; labels."""
        from sklearn.datasets import load_digits

        digits, rng = load_digits(), np.random.default_rng([self.seed, 1])
        images = digits.images[:, None] / 16
        images = (images + self.noise * rng.standard_normal(images.shape) - 0.3).astype(np.float32)
        order, fifth = rng.permutation(len(images)), len(images) // 5
        parts = {"val": order[:fifth], "test": order[fifth : 2 * fifth], "train": order[2 * fifth :]}
        labels = digits.target.astype(np.int64)
        return {key: images[part] for key, part in parts.items()}, {key: labels[part] for key, part in parts.items()}

    def _sounds(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]] | None:
        """Spectrograms, float32 ``[n, 1, 32, 32]``, and labels of each split; None where there is no such file."""
        try:
            path = find_archive(self.sound, "no recordings", "")
        except FileNotFoundError:
            return None
        with np.load(path, allow_pickle=False) as archive:
            mel, labels, speaker = (archive[name] for name in ("log_mel", "label", "speaker"))
        # Means of 2 x 2 cells: a quarter of the arithmetic.
        small = mel.reshape(len(mel), 1, 32, 2, 32, 2).mean(axis=(3, 5), dtype=np.float32) / 128 - 0.5
        held_out = {"val": speaker == self.val_speaker, "test": speaker == self.test_speaker}
        parts = {"train": ~(held_out["val"] | held_out["test"])} | held_out
        return {key: (small[part], labels[part].astype(np.int64)) for key, part in parts.items()}
