"""AsyncAPI 3.1: `describe(app)` is the document of an app's routes, actions, events and errors."""

from wsaction.asyncapi._document import describe

__all__ = ("describe",)
