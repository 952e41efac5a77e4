"""Who may do what. They are asked for each frame, and again for who is subscribed, whenever an event is told."""

from typing import Any

from examples.boards.tables import BOARDS
from wsaction.permissions import BasePermission, IsOwner


def is_self(scope: Any, handler: Any, action: str, user: int = 0, **kwargs: Any) -> bool:
    """Lists of boards are everybody's own."""
    return bool(scope["user"].id == user)


class IsMember(BasePermission):
    """A board, and all that is on it, is its members'; others learn not even whether there is one."""

    message = "There is no such board, or you are not one of its members."

    async def has_permission(self, scope: Any, handler: Any, action: str, board: int = 0, **kwargs: Any) -> bool:
        return await BOARDS.filter(pk=board, members__id=scope["user"].id).exists()


class IsBoardOwner(IsOwner):
    """Every member looks; only the owner changes the board itself, and who is a member."""

    message = "Only the owner of the board may do this."
    lookup_field = "owner_id"
    check_actions = ("update", "partial_update", "destroy", "invite", "dismiss")


class IsAuthor(IsOwner):
    """Comments are changed and deleted by who wrote them."""

    message = "Only who wrote a comment may do this."
    lookup_field = "author_id"
    check_actions = ("update", "partial_update", "destroy")
