"""How this process was started: alone or as one of several by ``torchrun`` or ``srun``, for the first time or again."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from search.errors import CatchmarkError

_FIRST_PORT, _PORTS = 15000, 15000
"""Where the ports lie that a SLURM job's number chooses from: below those that systems give to outgoing connections."""
WORKER = "CATCHMARK_WORKER"
"""Set in the environment of an executor's worker that trains on the devices that it sees."""


@dataclass(frozen=True)
class Launch:
    """What a launcher says of this process.

    Attributes:
        rank: this process, of those that were started together; the first, 0, runs the search.
        ranks: how many there are.
        local_rank: this process, of those on its node.
        nodes: how many nodes there are.
        address: the node of rank 0.
        port: where ranks meet there.
        identity: names the job, the same when it is restarted; empty where nothing restarts it.
        restarts: how often it was restarted.
        agent: whether ranks meet at an agent of torchrun; otherwise rank 0 waits there for the others.
        worker: whether this is an executor's worker, which starts by itself the processes that train a network on
            several devices.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    nodes: int = 1
    address: str = ""
    port: int = 0
    identity: str = ""
    restarts: int = 0
    agent: bool = False
    worker: bool = False

    @property
    def ranks_of_node(self) -> int:
        """How many ranks each node has."""
        return self.ranks // self.nodes

    @property
    def node(self) -> int:
        """The node of this process."""
        return self.rank // self.ranks_of_node


def find_launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """Read what ``torchrun`` or ``srun`` left in the environment.

    Raises:
        CatchmarkError: it does not make sense.
    """
    if environment.get(WORKER):  # whatever launched the machine's part of a cluster launched no ranks
        return Launch(worker=True)
    job = _Environment(environment)
    restarts = job.number("TORCHELASTIC_RESTART_COUNT", 0) + job.number("SLURM_RESTART_COUNT", 0)
    if "SLURM_JOB_ID" in environment:
        identity = f"SLURM {environment.get('SLURM_CLUSTER_NAME', '')} {environment['SLURM_JOB_ID']}"
    elif (run := environment.get("TORCHELASTIC_RUN_ID", "none")) != "none":
        identity = f"torchrun {run}"
    elif "TORCHELASTIC_RUN_ID" in environment:  # not named: where its processes meet is as good as a name
        identity = f"torchrun {environment.get('MASTER_ADDR', '')}:{environment.get('MASTER_PORT', '')}"
    else:
        identity = ""
    if "RANK" in environment and job.number("WORLD_SIZE", 1) > 1:
        launch = Launch(
            job.number("RANK"),
            job.number("WORLD_SIZE"),
            job.number("LOCAL_RANK", 0),
            job.number("GROUP_WORLD_SIZE", 1),
            job.text("MASTER_ADDR"),
            job.number("MASTER_PORT"),
            identity,
            restarts,
            agent=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        )
    elif "SLURM_PROCID" in environment and (ranks := job.first_number("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")) > 1:
        hosts = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "localhost")
        number = job.number("SLURM_JOB_ID", 0) * 7 + job.number("SLURM_STEP_ID", 0)
        launch = Launch(
            job.number("SLURM_PROCID"),
            ranks,
            job.number("SLURM_LOCALID", 0),
            job.first_number("SLURM_STEP_NUM_NODES", "SLURM_NNODES"),
            environment.get("MASTER_ADDR") or first_host(hosts),
            job.number("MASTER_PORT", _FIRST_PORT + number % _PORTS),
            identity,
            restarts,
        )
    else:
        return Launch(identity=identity, restarts=restarts)
    if not (0 <= launch.rank < launch.ranks and launch.nodes >= 1 and launch.ranks % launch.nodes == 0):
        raise CatchmarkError(
            f"this is rank {launch.rank} of {launch.ranks} on {launch.nodes} nodes, as the launcher says; "
            "each node must have the same number of processes"
        )
    return launch


def first_host(nodes: str) -> str:
    """The first of SLURM's list of nodes: of ``node[07-09,12],other`` it is ``node07``."""
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", re.split(r",(?![^\[]*\])", nodes)[0]).strip()


class _Environment:
    """Numbers of the environment."""

    def __init__(self, environment: Mapping[str, str]):
        self.environment = environment

    def text(self, key: str) -> str:
        if not (value := self.environment.get(key, "")):
            raise CatchmarkError(f"the environment has WORLD_SIZE and RANK but no {key}: start with torchrun or srun")
        return value

    def number(self, key: str, default: int | None = None) -> int:
        value = self.environment.get(key) or (str(default) if default is not None else self.text(key))
        try:
            return int(value)
        except ValueError:
            raise CatchmarkError(f"the environment variable {key} is '{value}', a whole number is needed") from None

    def first_number(self, *keys: str) -> int:
        """Of the first variable that there is; 1 where there is none."""
        return next((self.number(key) for key in keys if self.environment.get(key)), 1)
