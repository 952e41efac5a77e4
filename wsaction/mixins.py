"""The actions that generic handlers are made of."""

from typing import Any

from wsaction.decorators import async_action

__all__ = ("RetrieveModelMixin",)


class RetrieveModelMixin:
    """Adds ``retrieve``: the object that the route names, as ``serializer_class`` shows it."""

    @async_action
    async def retrieve(self) -> Any:
        """One object."""
        handler: Any = self  # a GenericAsyncAPIActionHandler, which this is mixed into
        return handler.serialize(await handler.get_object())
