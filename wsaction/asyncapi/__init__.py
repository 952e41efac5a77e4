"""AsyncAPI 3.1 documents: `describe()` writes the routes, actions, events and errors of an application."""

from wsaction.asyncapi._document import describe

__all__ = ("describe",)
