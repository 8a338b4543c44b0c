"""Text of anything that is equal only where every bit is."""

import torch


def exact_text(*values):
    """As `repr` has it, but for tensors, of which torch writes few digits, or all of them slowly."""
    return repr(_plain(values))


def _plain(value):
    if isinstance(value, torch.Tensor):
        return str(value.dtype), list(value.shape), value.tolist()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
