"""What Lightning's Trainer is told by one of several ranks, by a process that trains alone, and by a worker."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from search.errors import CatchmarkError
from search.training.interruption import interrupt
from search.training.launch import Launch, find_launch

_OWN_PROCESSES = ("fork", "spawn", "notebook")
_STRATEGY = re.compile(r"ddp(?:_(?P<how>fork|spawn|notebook))?(?P<unused>_find_unused_parameters_(?:true|false))?")

Arguments = Mapping[str, Any]
"""A recipe's further arguments of a Trainer."""

TINY_TRAINER: Arguments = MappingProxyType(
    {
        "limit_train_batches": 2,
        "limit_val_batches": 1,
        "accelerator": "auto",
        "devices": 1,
        "num_nodes": 1,
        "precision": "32-true",
        "strategy": "auto",
    }
)
"""What makes a training one of a moment, in one process on whatever device there is."""


def count(arguments: Arguments, key: str) -> int:
    """How many devices or nodes are asked for; 0 where Lightning is to find out."""
    value = arguments.get(key, 1)
    if isinstance(value, (list, tuple)):
        return len(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def listed(value: Any) -> list[Any]:
    """One or several of what a Trainer takes both ways, as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def is_joint(arguments: Arguments) -> bool:
    """Whether several devices are asked for: these may be those of other ranks."""
    return (
        arguments.get("strategy", "auto") != "auto" or count(arguments, "devices") * count(arguments, "num_nodes") != 1
    )


def starts_processes(arguments: Arguments) -> bool:
    """Whether Lightning is to start a process for each device by itself."""
    return any(word in str(arguments.get("strategy", "")) for word in _OWN_PROCESSES)


def arguments_here(
    arguments: Arguments, key: str = "", any_branch: bool = True, command: str = "run", launch: Launch | None = None
) -> dict[str, Any]:
    """What the Trainer is told in this process.

    Args:
        arguments: of the recipe.
        key: where they stand in it, for messages; empty for its top.
        any_branch: whether networks may have branches that lead nowhere.
        command: of catchmark that reads the recipe, for messages.
        launch: how this process was started; None to look.

    Raises:
        CatchmarkError: they are made for other processes than there are.
    """
    launch = find_launch() if launch is None else launch
    if launch.ranks > 1:
        return arguments_of_rank(arguments, launch, key, any_branch)
    if launch.worker and _devices_here(arguments) > 1:
        return arguments_of_own_processes({**arguments, "strategy": strategy_of_own_processes(arguments, any_branch)})
    return arguments_alone(arguments, key, command)


def arguments_alone(arguments: Arguments, key: str, command: str = "run") -> dict[str, Any]:
    """What the Trainer of a single process is told: nothing of the wrapper that several processes would need.

    Args:
        arguments: of the recipe.
        key: where they stand in it, for messages; empty for its top.
        command: of catchmark that reads the recipe.

    Raises:
        CatchmarkError: they are for several processes, which nobody has started; Lightning would start the whole
            command again for each.
    """
    if starts_processes(arguments):
        return arguments_of_own_processes(arguments)
    devices, nodes = count(arguments, "devices"), count(arguments, "num_nodes")
    if not devices and arguments.get("accelerator") != "cpu":
        import torch

        devices = torch.cuda.device_count()
    if devices * nodes > 1:
        raise CatchmarkError(
            f"{_place(key)}trainer has devices: {devices} and num_nodes: {nodes}, a process for each must be started: "
            f"torchrun --nnodes {nodes} --nproc-per-node {devices} -m search.cli {command} ..."
        )
    plain = str(arguments.get("strategy", "auto")).startswith("ddp")
    return {**arguments, "strategy": "auto"} if plain else dict(arguments)


def arguments_of_own_processes(arguments: Arguments) -> dict[str, Any]:
    """What a Trainer is told that starts a process for each device by itself: these find each other, and end with it.

    Args:
        arguments: of the recipe.
    """
    from pytorch_lightning.callbacks import LambdaCallback

    from search.training.rank_environment import OwnProcesses

    ending = LambdaCallback(on_train_start=_end_at_once)
    return {
        **arguments,
        "callbacks": [*listed(arguments.get("callbacks")), ending],
        "plugins": [*listed(arguments.get("plugins")), OwnProcesses()],
    }


def devices_asked(arguments: Arguments) -> int:
    """How many devices a network is trained on, however that is written; 0 where Lightning is to find out."""
    given = arguments.get("devices", 1)
    if isinstance(given, str):
        numbers = [each.strip() for each in given.split(",") if each.strip()]
        given = numbers if len(numbers) > 1 else int(numbers[0]) if numbers and numbers[0].isdecimal() else 0
    if isinstance(given, (list, tuple)):
        return len(given)
    return max(0, given) if isinstance(given, int) else 1


def _devices_here(arguments: Arguments) -> int:
    """The same, where to find out is to take all GPUs that this process sees."""
    if asked := devices_asked(arguments):
        return asked
    import torch

    return max(1, torch.cuda.device_count())


def strategy_of_own_processes(arguments: Arguments, any_branch: bool = True) -> str:
    """The strategy by which a worker starts the processes that train a network on several devices.

    Lightning starts those of a plain ``ddp`` by running the command line again. A worker's command line is not the
    run's, so there they are forked instead, or spawned where they can't be forked.

    Raises:
        CatchmarkError: the strategy can't do that.
    """
    import torch

    given = arguments.get("strategy", "auto")
    words = _STRATEGY.fullmatch("ddp" if given == "auto" else str(given))
    if words is None:
        raise CatchmarkError(
            f"trainer.strategy is '{given}', but on Ray a candidate is trained on several devices with ddp, ddp_fork "
            "or ddp_spawn, each also with _find_unused_parameters_true or _false behind it"
        )
    # In a search space there are networks with a branch that leads nowhere, which plain DDP refuses.
    unused = words["unused"] or ("_find_unused_parameters_true" if any_branch and not words["how"] else "")
    # To spawn takes seconds, and whatever the task holds must be pickled; but what has used CUDA can't be forked.
    spawn = words["how"] == "spawn" or torch.cuda.is_initialized()
    return f"ddp_{'spawn' if spawn else 'fork'}{unused}"


def arguments_of_rank(arguments: Arguments, launch: Launch, key: str, any_branch: bool = True) -> dict[str, Any]:
    """What the Trainer of a rank is told: how many there are, or that rank 0 trains by itself.

    Args:
        arguments: of the recipe.
        launch: of this process.
        key: where they stand in the recipe, for messages; empty for its top.
        any_branch: whether networks may have branches that lead nowhere.

    Raises:
        CatchmarkError: they are not made for that many ranks.
    """
    from pytorch_lightning.callbacks import LambdaCallback

    from search.training.rank_environment import RankEnvironment

    told, joint = dict(arguments), is_joint(arguments)
    if joint:
        told = _with_devices(told, launch, key)
        # In a search space there are networks with a branch that leads nowhere. Plain DDP refuses their parameters, and
        # the search would learn that they are bad.
        if told.get("strategy", "auto") in ("auto", "ddp"):
            told["strategy"] = "ddp_find_unused_parameters_true" if any_branch else "ddp"
        # From there on Lightning would answer the end of a rank with a word to the others in the middle of whatever
        # they do.
        terminate = LambdaCallback(on_train_start=lambda *_: signal.signal(signal.SIGTERM, interrupt))
        told["callbacks"] = [*listed(told.get("callbacks")), terminate]
    environment = RankEnvironment(launch if joint else Launch())
    return told | {"plugins": [*listed(told.get("plugins")), environment]}


def _with_devices(told: dict[str, Any], launch: Launch, key: str) -> dict[str, Any]:
    if starts_processes(told):
        raise CatchmarkError(
            f"{_place(key)}trainer.strategy '{told['strategy']}' starts processes of its own, and {launch.ranks} are "
            "there already; say strategy: ddp"
        )
    for name, there in {"devices": launch.ranks_of_node, "num_nodes": launch.nodes}.items():
        if name in told and count(told, name) not in (0, there):
            raise CatchmarkError(
                f"{_place(key)}trainer has {name}: {told[name]}, but {launch.ranks_of_node} processes were started on "
                f"each of {launch.nodes} nodes; say {name}: {there}, or start as many as the recipe names"
            )
        if not isinstance(told.get(name), (list, tuple)):  # or it names which
            told[name] = there
    return told


def _end_at_once(*_: Any) -> None:
    """Answer SIGTERM by ending; Lightning would first tell the other processes, which may never listen."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _place(key: str) -> str:
    return f"{key}: " if key else ""
