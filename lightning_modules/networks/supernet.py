"""Networks that hold every architecture of a space at once and share weights between them.

How data walks: `Supernet` is called with images and a `Path`. It puts the path where its `PathModule` parts look, then
runs like any network, and each part computes what the path says. So stem, skeleton and head are those of stand-alone
networks: nothing between them needs to know that there are paths.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.cells import Zero, cell_plan, run_cell


@dataclass(frozen=True)
class Path:
    """What a supernet computes.

    Attributes:
        choices: the architecture, one choice a decision, of which nothing but the chosen operations run. None runs
            every operation and adds them up by their weights: a continuous relaxation.
        weights: one tensor a decision, ``[choices]``, or whatever the space's relaxation gives, as for a decision that
            depends on those before it. Beside ``choices`` the output of each chosen operation is multiplied by its
            weight, which lets a gradient through to it (GDAS). Without ``choices`` they are required.
        active: without ``choices``, for each decision those whose weights are large enough to make a difference; a part
            may leave the others out. None for all of them. A sampler says so, for it has the weights on the CPU, and
            a part that looked at them where they are would wait for the accelerator.
    """

    choices: tuple[int, ...] | None
    weights: tuple[Tensor, ...] | None = None
    active: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a path that says nothing."""
        if self.choices is None and self.weights is None:
            raise ValueError("a path needs choices, weights, or both")


@dataclass
class Selection:
    """Where the parts of one supernet find the path of the pass under way."""

    path: Path = field(default_factory=lambda: Path(()))


class PathModule(nn.Module, ABC):
    """A part of a supernet that computes what the path says.

    Args:
        selection: of its supernet.
    """

    def __init__(self, selection: Selection):
        super().__init__()
        self.selection = selection

    @abstractmethod
    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The tensors that this part's counterpart in the stand-alone network of an architecture has, by its keys."""


class Supernet(nn.Module):
    """A network with weights for every architecture of a space.

    Args:
        build: makes the network out of the selection that its `PathModule` parts are to read.
    """

    def __init__(self, build: Callable[[Selection], nn.Module]):
        super().__init__()
        self.selection = Selection()
        self.network = build(self.selection)

    def forward(self, images: Tensor, path: Path) -> Tensor:
        """What the network of a path makes of a batch."""
        self.selection.path = path
        return self.network(images)

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The shared weights of one architecture, by the keys of its stand-alone network."""
        state: dict[str, Tensor] = {}

        def visit(module: nn.Module, prefix: str) -> None:
            if isinstance(module, PathModule):
                state.update({f"{prefix}{key}": value for key, value in module.standalone_state(choices).items()})
                return
            own = module.state_dict()
            own_names = {*dict(module.named_parameters(recurse=False)), *dict(module.named_buffers(recurse=False))}
            state.update({f"{prefix}{name}": own[name] for name in own_names if name in own})
            for name, child in module.named_children():
                visit(child, f"{prefix}{name}.")

        visit(self.network, "")
        return state

    def hand_down(self, choices: Sequence[int], network: nn.Module) -> None:
        """Copy the shared weights of an architecture into its stand-alone network.

        A stand-alone network may keep running statistics and learn a scale and a shift where the supernet does not;
        those stay as they are.

        Raises:
            ValueError: the network is not the architecture's.
        """
        try:
            take_over(network, self.standalone_state(choices))
        except ValueError as error:
            raise ValueError(f"the network is not the stand-alone network of {tuple(choices)}: {error}") from None


def take_over(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Copy the shared weights of an architecture into its stand-alone network: all of them or none.

    Args:
        network: stand-alone.
        state: what `Supernet.standalone_state` gives, or a copy of it.

    Returns:
        The network's keys that no shared weight is there for: running statistics, and the scale and the shift of a
        normalisation that learns none in the supernet. They stay as they are.

    Raises:
        ValueError: the network has other tensors, or some of other shapes; says which.
    """
    own = network.state_dict()
    wrong = [
        f"{key} ({list(state[key].shape)} shared, {list(value.shape)} in the network)"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    wrong += [f"{key} (shared alone)" for key in state if key not in own]
    missing = [key for key in own if key not in state]
    norms = {
        f"{name}.{key}" if name else key
        for name, module in network.named_modules()
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, BatchStatistics))
        for key in module.state_dict()
    }
    wrong += [f"{key} (not shared)" for key in missing if key not in norms]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(", ".join(wrong[:3]) + more)
    network.load_state_dict(dict(state), strict=False)
    return missing


class SuperEdges(PathModule):
    """A part whose edges each hold every operation that a path may choose for them.

    Args:
        selection: of its supernet.
        operations: for each edge, one module a choice.
        first: the decision of the first edge; those of the others follow.
    """

    def __init__(self, selection: Selection, operations: Sequence[Sequence[nn.Module]], first: int = 0):
        super().__init__(selection)
        self.operations = nn.ModuleList(nn.ModuleList(choices) for choices in operations)
        self.decisions = slice(first, first + len(operations))
        self._carries = [[not isinstance(operation, Zero) for operation in choices] for choices in operations]

    def connected(self, choices: Sequence[int]) -> tuple[bool, ...]:
        """Whether each edge carries anything where these are its edges' choices."""
        return tuple(carries[choice] for carries, choice in zip(self._carries, choices, strict=True))

    def message(self, edge: int, choice: int, x: Tensor, weights: Sequence[Tensor] | None) -> Tensor:
        """What an operation makes of a feature map, times its weight if there are weights."""
        output = self.operations[edge][choice](x)  # type: ignore[index]
        return output if weights is None else output * weights[edge][choice]

    def weights(self) -> Sequence[Tensor] | None:
        """The weights of this part's decisions; None where the path has none."""
        weights = self.selection.path.weights
        return None if weights is None else weights[self.decisions]

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """The chosen operations' tensors, by the keys of a stand-alone part with one operation an edge."""
        return {
            f"operations.{edge}.{key}": value
            for edge, choice in enumerate(choices[self.decisions])
            for key, value in self.operations[edge][choice].state_dict().items()  # type: ignore[index]
        }


class SuperCell(SuperEdges):
    """A densely connected cell (`lightning_modules.networks.cells.Cell`) with every operation on every edge.

    Its edges come in the order 1<-0, 2<-0, 2<-1, 3<-0, ...
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in_channels, height, width]`` to the last node's feature map."""
        path, weights = self.selection.path, self.weights()
        if path.choices is None:
            assert weights is not None
            return self._relaxed(x, weights)
        choices = path.choices[self.decisions]
        return run_cell(
            x,
            cell_plan(self.connected(choices)),
            lambda edge, value: self.message(edge, choices[edge], value, weights),
            lambda edge, value: self.message(edge, choices[edge], value, None),
        )

    def _relaxed(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        nodes = [x]
        for target, pairs in enumerate(cell_plan((True,) * len(self._carries)), start=1):
            total: Tensor | None = None
            for source, edge in pairs:
                for choice, carries in enumerate(self._carries[edge]):
                    if carries:
                        message = self.message(edge, choice, nodes[source], weights)
                        total = message if total is None else total + message
            assert total is not None, f"no operation on an edge of node {target} carries anything"
            nodes.append(total)
        return nodes[-1]
