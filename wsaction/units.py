"""The former name of `wsaction.transactions`; it goes with 0.4."""

import warnings

from wsaction.transactions import Resource, UnitOfWork, unit_of_work

__all__ = ("Resource", "UnitOfWork", "unit_of_work")

warnings.warn("wsaction.units is wsaction.transactions now; import from there", DeprecationWarning, stacklevel=2)
