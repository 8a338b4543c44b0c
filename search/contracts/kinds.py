"""Which kinds of plugins there are, and the contract of each."""

from __future__ import annotations

from search.contracts import agent, attribute, path_sampler, reward, space, task
from search.contracts.contract import Contract
from search.errors import CatchmarkError

CONTRACTS = (
    space.CONTRACT,
    agent.CONTRACT,
    attribute.CONTRACT,
    path_sampler.CONTRACT,
    task.CONTRACT,
    task.POOL_CONTRACT,
    reward.CONTRACT,
)


def contract_of(found: type) -> Contract:
    """The contract of a class, by what it is derived from.

    Raises:
        CatchmarkError: it is no plugin of any kind.
    """
    for contract in CONTRACTS:
        if issubclass(found, contract.base):
            return contract
    kinds = ", ".join(f"{each.base.__module__}.{each.base.__name__}" for each in CONTRACTS)
    raise CatchmarkError(f"{found.__name__} is no plugin; it must be derived from one of: {kinds}")
