"""`Depends` makes a parameter of an action, as FastAPI's: `Annotated[Board, Depends(get_board)]`."""

from wsaction._handlers.dependencies import Depends

__all__ = ("Depends",)
