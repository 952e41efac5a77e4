"""Permissions, by DRF's names: who may connect, call an action, and see an object.

A permission class defines ``can_connect``, ``has_permission`` or ``has_object_permission``, sync or async. Combine
classes with ``&``, ``|`` and ``~``: ``permission_classes = (IsAuthenticated & ~IsBanned,)``. A plain function
``(scope, handler, action, **kwargs) -> bool`` is a permission too.
"""

from wsaction._utils.asgi import Scope
from wsaction.permissions._classes import (
    AllowAny,
    BasePermission,
    DenyAll,
    IsAuthenticated,
    IsAuthenticatedStrictly,
    IsOwner,
    Permission,
)
from wsaction.permissions._expressions import Composition

__all__ = (
    "AllowAny",
    "BasePermission",
    "Composition",
    "DenyAll",
    "IsAuthenticated",
    "IsAuthenticatedStrictly",
    "IsOwner",
    "Permission",
    "Scope",
)
