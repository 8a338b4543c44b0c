"""Choices as modules: a network that says inside its own code what may be searched.

`find_choices` lists them, `ChoiceSupernet` runs a path through the very network that declares them, and `cut` takes
the stand-alone network of one architecture out of it.
"""

from lightning_modules.networks.choices.attention import SelfAttention
from lightning_modules.networks.choices.choice_module import ChoiceModule, cut, cut_weights, strip
from lightning_modules.networks.choices.elastic import ElasticConv2d, ElasticLinear, ElasticParameter
from lightning_modules.networks.choices.elastic_norms import ElasticBatchNorm2d, ElasticLayerNorm
from lightning_modules.networks.choices.finding import Declared, find_choices
from lightning_modules.networks.choices.given_depths import with_depth_choices
from lightning_modules.networks.choices.given_widths import with_width_choices
from lightning_modules.networks.choices.operations import DepthChoice, OperationChoice
from lightning_modules.networks.choices.supernet import ChoiceSupernet
from lightning_modules.networks.choices.value import Choice, Product, Value

__all__ = [
    "Choice",
    "ChoiceModule",
    "ChoiceSupernet",
    "Declared",
    "DepthChoice",
    "ElasticBatchNorm2d",
    "ElasticConv2d",
    "ElasticLayerNorm",
    "ElasticLinear",
    "ElasticParameter",
    "OperationChoice",
    "Product",
    "SelfAttention",
    "Value",
    "cut",
    "cut_weights",
    "find_choices",
    "strip",
    "with_depth_choices",
    "with_width_choices",
]
