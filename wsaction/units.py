"""The former name of `wsaction.transactions`. Deprecated; 0.4 removes it."""

import warnings

from wsaction.transactions import Resource, UnitOfWork, unit_of_work

__all__ = ("Resource", "UnitOfWork", "unit_of_work")

warnings.warn("wsaction.units is deprecated; import from wsaction.transactions", DeprecationWarning, stacklevel=2)
