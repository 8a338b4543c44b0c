"""A task whose evaluations a network predicts: NAS-Bench-301's training runs on the DARTS space.

The predictor is YAHPO Gym's second surrogate of NAS-Bench-301 (Pfisterer et al., AutoML 2022): a network fitted to the
learning curves of the architectures that NAS-Bench-301 trained (Siems et al., 2020; Zimmer, figshare 13286105). It is
not one of the regressors that the benchmark itself publishes, and agrees with those in part only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from datamodules.archives import find_archive
from lightning_modules.networks.darts_cells import DECISIONS_PER_CELL, EDGES, INPUTS, OPERATION_NAMES, PAIRS
from search.errors import RunError, nearest
from search.evaluation import Evaluation, Proposal
from search.spaces.base import SearchSpace
from search.spaces.darts import CELLS, DARTS
from search.tasks.base import Task

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MOST_EPOCHS = 98
"""The last epoch of the benchmark's learning curves."""
OUTPUTS = ("val_accuracy", "val_cross_entropy", "runtime", "runtime_increase")
"""What the model predicts, column by column (YAHPO Gym, v2): accuracy in [0, 1], natural logarithms, and seconds of
training up to the epoch and of the epoch itself."""

_PREFIX = "NetworkSelectorDatasetInfo_COLON_darts_COLON_"
_ABSENT = "#na#"
# The order in which the model reads its inputs: by number. The encoding's file lists them by the alphabet.
_INPUTS = (
    *(f"{_PREFIX}edge_{cell}_{edge}" for cell in CELLS for edge in range(len(EDGES))),
    *(f"{_PREFIX}inputs_node_{cell}_{node}" for cell in CELLS for node in (3, 4, 5)),
)
_CURE = "set CATCHMARK_DATA to the folder that has it; the file is YAHPO Gym's (yahpo_data, nb301)"


class SurrogateTask(Task):
    """The validation accuracy on CIFAR-10, in %, that NAS-Bench-301's runs let expect of an architecture.

    An evaluation's cost is the predicted training time. What else decides a training (32 channels, 8 cells, optimiser,
    augmentation) is NAS-Bench-301's and cannot be chosen. Needs onnxruntime: ``pip install catchmark[surrogate]``.

    Args:
        space: `DARTS`.
        model: the ONNX file's path; a relative one is looked for below the current folder, then below
            ``$CATCHMARK_DATA``.
        encoding: path of the JSON file with the model's categories, looked for in the same places.
        epochs: of training, 1 to 98; the benchmark's full training has 98.
        metrics: further predictions to keep, of ``val_cross_entropy``, ``runtime`` and ``runtime_increase``. No agent
            sees them.

    Raises:
        FileNotFoundError: a file is not there.
        ImportError: onnxruntime is not installed.
        ValueError: the space is not DARTS, an argument is out of range, or a file is not the surrogate's.
    """

    instant = True
    honours = frozenset({"epochs"})

    def __init__(
        self,
        space: SearchSpace,
        model: str = "nasbench301_surrogate/model_v2.onnx",
        encoding: str = "nasbench301_surrogate/encoding_v2.json",
        epochs: int = MOST_EPOCHS,
        metrics: Sequence[str] = (),
    ):
        if not isinstance(space, DARTS):
            raise ValueError(
                f"space is '{space.name}', the surrogate of NAS-Bench-301 predicts on the space 'darts' only"
            )
        if not 1 <= epochs <= MOST_EPOCHS:
            raise ValueError(f"epochs is {epochs}, it must lie in [1, {MOST_EPOCHS}]: NAS-Bench-301 trained no longer")
        for metric in metrics:
            if metric not in OUTPUTS[1:]:
                hint = nearest(metric, OUTPUTS[1:], "")
                raise ValueError(f"metrics has '{metric}', allowed: {', '.join(OUTPUTS[1:])}{hint}")
        self.space, self.epochs, self.metrics = space, epochs, tuple(metrics)
        self._codes = _read_encoding(find_archive(encoding, "no encoding", _CURE))
        self._model = find_archive(model, "no surrogate", _CURE)
        self._session = _open(self._model)
        self.score_name = f"cifar10 val accuracy after {epochs} epochs, predicted (%)"

    @classmethod
    def toy(cls) -> dict[str, Any] | None:
        """Its files do not ship."""
        return None

    def evaluate(self, proposals: Sequence[Proposal]) -> Iterator[Evaluation]:
        """The model's predictions, all in one pass; seeds change nothing."""
        if not proposals:
            return
        archs = torch.tensor([proposal.architecture for proposal in proposals], dtype=torch.long)
        epochs = torch.tensor([proposal.fidelity.get("epochs", self.epochs) for proposal in proposals])
        for asked in epochs.tolist():
            if not 1 <= asked <= MOST_EPOCHS:
                raise RunError(
                    f"the agent asks for {asked:g} epochs, the surrogate of NAS-Bench-301 predicts 1 to {MOST_EPOCHS}"
                )
        for prediction in self.predict(archs, epochs).tolist():
            values = dict(zip(OUTPUTS, prediction, strict=True))
            yield Evaluation(
                100 * values["val_accuracy"], {name: values[name] for name in self.metrics}, values["runtime"]
            )

    def predict(self, archs: Tensor, epochs: Tensor | None = None) -> Tensor:
        """Everything that the model says of some architectures.

        Args:
            archs: int64 ``[n, decisions]``.
            epochs: of training, ``[n]``; None for the task's own.

        Returns:
            Float64 ``[n, 4]``, columns as in `OUTPUTS`.

        Raises:
            ValueError: an architecture does not belong to the space.
        """
        given = torch.full((len(archs),), self.epochs) if epochs is None else epochs
        continuous = given.numpy().astype(np.float32)[:, None]
        (output,) = self._session.run(None, {"x_cat": self.encode(archs).numpy(), "x_cont": continuous})
        return torch.from_numpy(output).double()

    def encode(self, archs: Tensor) -> Tensor:
        """What the model reads: int64 ``[n, decisions]`` to int32 ``[n, 34]``.

        One column for each of a cell's 14 edges says which operation is on it, if any; then one for each node but a
        cell's first says which nodes it reads.
        """
        if not self.space.is_valid(archs).all():
            for architecture in archs.tolist():
                self.space.check(architecture)
        places = torch.zeros(len(archs), len(_INPUTS), dtype=torch.long)  # among `_categories`
        decisions = archs.unbind(-1)
        for cell in range(len(CELLS)):
            edge, column = cell * len(EDGES), len(CELLS) * len(EDGES) + cell * (len(PAIRS) - 1)
            for node, pairs in enumerate(PAIRS):
                first = cell * DECISIONS_PER_CELL + 3 * node
                pair, *operations = decisions[first : first + 3]
                if node:
                    places[:, column + node - 1] = 1 + pair
                for source, operation in zip(torch.tensor(pairs)[pair].unbind(-1), operations, strict=True):
                    places.scatter_(1, (edge + source)[:, None], 1 + operation[:, None])
                edge += INPUTS + node
        return self._codes.gather(1, places.T).T.int()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._session = _open(self._model)  # a session of onnxruntime cannot be sent to another process


def _categories(name: str) -> tuple[str, ...]:
    """The categories of one of the model's inputs, in the order of the space's choices; first that it is absent."""
    if "inputs_node" in name:
        return (_ABSENT, *(f"{earlier}_{later}" for earlier, later in PAIRS[int(name[-1]) - INPUTS]))
    return (_ABSENT, *OPERATION_NAMES)


def _read_encoding(path: Path) -> Tensor:
    """The number of every category of every input: int64 ``[34, most categories]``, in the order of `_categories`.

    Raises:
        ValueError: the file is not the encoding of the surrogate.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # damaged JSON and text that is not UTF-8 alike
        raise ValueError(f"{path}: the encoding is damaged ({error}); fetch it again") from error
    codes = torch.full((len(_INPUTS), max(len(_categories(name)) for name in _INPUTS)), -1)
    for row, name in enumerate(_INPUTS):
        known = content.get(name) if isinstance(content, dict) else None
        for place, category in enumerate(_categories(name)):
            code = known.get(category) if isinstance(known, dict) else None
            if not isinstance(code, int) or code < 0:
                raise ValueError(f"{path}: not NAS-Bench-301's encoding: '{name}' has no number for '{category}'")
            codes[row, place] = code
    return codes


def _open(path: Path) -> InferenceSession:
    """The model, on one thread: a prediction takes microseconds, and many searches may run side by side.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: the file is not the surrogate.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "the surrogate of NAS-Bench-301 needs onnxruntime: run 'pip install catchmark[surrogate]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # every kind of damage has its own class in a module that is not public
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: the surrogate cannot be opened ({reason}); fetch it again") from error
    shapes = {port.name: port.shape[1:] for port in (*session.get_inputs(), *session.get_outputs())}
    needed = {"x_cat": [len(_INPUTS)], "x_cont": [1], "output": [len(OUTPUTS)]}
    if shapes != needed:
        raise ValueError(f"{path}: not NAS-Bench-301's surrogate: it has {shapes}, {needed} is needed")
    return session
