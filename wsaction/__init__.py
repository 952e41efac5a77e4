"""WebSocket APIs with routes, serializers, permissions and generic actions, as an ASGI framework.

The names that applications use every day are here, as in ``from wsaction import WSAction, path``. Each is also in the
module that it belongs to, beside the others of its kind: ``from wsaction.routing import path``. A name's module is
loaded when the name is first used, so that ``import wsaction`` loads the standard library alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = (
    "APIError",
    "AllowAny",
    "AsyncAPIActionHandler",
    "AsyncAPIConsumer",
    "BasePermission",
    "BearerAuthentication",
    "Credential",
    "DenyAll",
    "Depends",
    "ImproperlyConfigured",
    "Input",
    "IsAuthenticated",
    "IsOwner",
    "Limits",
    "MemoryQuerySet",
    "ModelAPIActionHandler",
    "ModelAPIConsumer",
    "NotFound",
    "Output",
    "PermissionDenied",
    "PresenceMixin",
    "Q",
    "QuerySet",
    "ReadOnly",
    "ReadOnlyModelAPIActionHandler",
    "ReadOnlyModelAPIConsumer",
    "RedisLayer",
    "Router",
    "SQLAlchemyQuerySet",
    "Scope",
    "SimpleRouter",
    "SubscribeMixin",
    "Values",
    "WSAction",
    "WriteOnly",
    "async_action",
    "include",
    "path",
    "re_path",
    "unit_of_work",
)

__version__ = "0.2.0"

if TYPE_CHECKING:
    from wsaction.applications import WSAction
    from wsaction.authentication import BearerAuthentication, Credential
    from wsaction.consumers import AsyncAPIConsumer
    from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
    from wsaction.decorators import async_action
    from wsaction.dependencies import Depends
    from wsaction.exceptions import APIError, ImproperlyConfigured, NotFound, PermissionDenied
    from wsaction.generics import (
        ModelAPIActionHandler,
        ModelAPIConsumer,
        ReadOnlyModelAPIActionHandler,
        ReadOnlyModelAPIConsumer,
    )
    from wsaction.handlers import AsyncAPIActionHandler
    from wsaction.layers.redis import RedisLayer
    from wsaction.limits import Limits
    from wsaction.mixins import Input, Output, Values
    from wsaction.permissions import AllowAny, BasePermission, DenyAll, IsAuthenticated, IsOwner, Scope
    from wsaction.presence import PresenceMixin
    from wsaction.querysets import MemoryQuerySet, Q, QuerySet
    from wsaction.routers import SimpleRouter
    from wsaction.routing import Router, include, path, re_path
    from wsaction.serializers import ReadOnly, WriteOnly
    from wsaction.subscriptions import SubscribeMixin
    from wsaction.transactions import unit_of_work

_MODULES = {
    "applications": "WSAction",
    "authentication": "BearerAuthentication Credential",
    "consumers": "AsyncAPIConsumer",
    "contrib.sqlalchemy": "SQLAlchemyQuerySet",
    "decorators": "async_action",
    "dependencies": "Depends",
    "exceptions": "APIError ImproperlyConfigured NotFound PermissionDenied",
    "generics": "ModelAPIActionHandler ModelAPIConsumer ReadOnlyModelAPIActionHandler ReadOnlyModelAPIConsumer",
    "handlers": "AsyncAPIActionHandler",
    "layers.redis": "RedisLayer",
    "limits": "Limits",
    "mixins": "Input Output Values",
    "permissions": "AllowAny BasePermission DenyAll IsAuthenticated IsOwner Scope",
    "presence": "PresenceMixin",
    "querysets": "MemoryQuerySet Q QuerySet",
    "routers": "SimpleRouter",
    "routing": "Router include path re_path",
    "serializers": "ReadOnly WriteOnly",
    "subscriptions": "SubscribeMixin",
    "transactions": "unit_of_work",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Loads a name from its module when it is first used (PEP 562)."""
    if (module := _MODULE_OF.get(name)) is None:
        from wsaction._utils.hints import did_you_mean

        cure = did_you_mean(name, __all__, "it has")
        raise AttributeError(f"module 'wsaction' has no attribute {name!r}; {cure}")
    value = globals()[name] = getattr(import_module(f"wsaction.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
