"""Dependency injection as in FastAPI: ``Annotated[Board, Depends(get_board)]`` for a parameter of an action."""

from wsaction._handlers.dependencies import Depends

__all__ = ("Depends",)
