"""Several attributes of one architecture, of which those that look at the same network share it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import replace

import torch

from search.attributes.base import Attribute
from search.attributes.proxy import Proxy
from search.errors import CatchmarkError, RunError, one_line
from search.evaluation import Architecture, Evaluation


def measure_together(attributes: Mapping[str, Attribute], architecture: Architecture) -> dict[str, float]:
    """The values of an architecture's attributes, each as the attribute alone would give it.

    Args:
        attributes: by name.
        architecture: of their space.

    Returns:
        By name; NaN where there is no value.

    Raises:
        RunError: one of them can't be measured.
    """
    kin: dict[Hashable, list[str]] = {}
    for name, attribute in attributes.items():
        if isinstance(attribute, Proxy) and not attribute.knows(architecture):
            kin.setdefault(attribute.kinship(), []).append(name)
    name = next(iter(attributes), "")
    try:
        for names in kin.values():
            name = names[0]
            leader = attributes[name]
            assert isinstance(leader, Proxy)
            with leader.probe(leader.measured(architecture)) as probe:
                for name in names:
                    proxy = attributes[name]
                    assert isinstance(proxy, Proxy)
                    proxy.remember(architecture, proxy.score_of(probe))
        values = {}
        for name, attribute in attributes.items():
            values[name] = float(attribute.values(torch.tensor(architecture)))
        return values
    except CatchmarkError:
        raise
    except Exception as error:
        text = attributes[name].space.format(architecture)
        raise RunError(f"attributes.{name}: it can't be measured of {text}: {one_line(error)}") from error


def with_attributes(
    evaluation: Evaluation, attributes: Mapping[str, Attribute], architecture: Architecture
) -> Evaluation:
    """An evaluation as the journal keeps it: with the attributes of its architecture, those that it has.

    Raises:
        RunError: one of them can't be measured.
    """
    if not attributes:
        return evaluation
    values = measure_together(attributes, architecture)
    found = {name: value for name, value in values.items() if not math.isnan(value)}
    return replace(evaluation, attributes=evaluation.attributes | found)
