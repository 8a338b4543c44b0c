"""What a method returns, as networks: architectures of one network are one choice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from lightning_modules.path_samplers.base import Evaluate
from search.evaluation import Architecture
from search.spaces.base import SearchSpace

_FURTHER = 4
"""By how much more is asked for where too much of it was of no use."""
_MOST = 256
"""Times as many architectures as are wanted, after which no more are asked for."""


def choose_networks(
    space: SearchSpace,
    choose: Callable[[Evaluate, int, int], list[Architecture]],
    evaluate: Evaluate,
    count: int,
    seed: int,
    besides: Collection[Architecture] = (),
    usable: Callable[[Architecture], bool] = lambda _: True,
) -> list[Architecture]:
    """The best architectures of a method, no two of one network (`SearchSpace.canonical`).

    Args:
        space: of the architectures.
        choose: `PathSampler.choose`; asked for more where it named one network several times.
        evaluate: worth with the shared weights; asked once for each architecture.
        count: how many are wanted; fewer where the method has fewer to offer.
        seed: of the method's choice.
        besides: architectures whose networks are not wanted.
        usable: whether an architecture is of use.

    Returns:
        Best first.
    """
    worth: dict[Architecture, float] = {}

    def remembered(archs: Sequence[Architecture]) -> list[float]:
        new = [arch for arch in dict.fromkeys(archs) if arch not in worth]
        worth.update(zip(new, evaluate(new) if new else [], strict=True))
        return [worth[arch] for arch in archs]

    asked, unwanted = count + len(besides), {space.canonical_of(each) for each in besides}
    while True:
        chosen = choose(remembered, asked, seed)
        networks: dict[Architecture, Architecture] = {}
        for arch in chosen:
            networks.setdefault(space.canonical_of(arch), arch)
        kept = [arch for network, arch in networks.items() if network not in unwanted and usable(arch)]
        if len(kept) >= count or len(chosen) < asked or asked >= _MOST * count:
            return kept[:count]
        asked *= _FURTHER
