"""A small space whose decisions have different numbers of choices and rule out later ones."""

from search.contracts.toy_spaces import LENGTHS, LIMITS, WIDTHS, MaskedSpace

__all__ = ["LENGTHS", "LIMITS", "WIDTHS", "MaskedSpace"]
