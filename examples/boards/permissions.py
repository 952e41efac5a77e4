"""The permissions. They are checked for each frame, and for all subscriptions again after `revoke_user()`."""

from examples.boards.tables import BOARDS
from wsaction import AsyncAPIActionHandler, BasePermission, IsOwner, Scope


def is_self(scope: Scope, handler: AsyncAPIActionHandler, action: str, user: int = 0, **kwargs: object) -> bool:
    """Users see only their own list of boards."""
    return bool(scope["user"].id == user)


class IsMember(BasePermission):
    """Only members see a board and all that is on it. Others do not even learn whether it exists."""

    message = "This board does not exist, or you are not a member of it."

    async def has_permission(
        self, scope: Scope, handler: AsyncAPIActionHandler, action: str, board: int = 0, **kwargs: object
    ) -> bool:
        return await BOARDS.filter(pk=board, members__id=scope["user"].id).exists()


class IsBoardOwner(IsOwner):
    """All members see the board; only the owner changes it and its members."""

    message = "Only the owner of the board may do this."
    lookup_field = "owner_id"
    check_actions = ("update", "partial_update", "destroy", "invite", "dismiss")


class IsAuthor(IsOwner):
    """Only its author changes or deletes a comment."""

    message = "Only the author of the comment may do this."
    lookup_field = "author_id"
    check_actions = ("update", "partial_update", "destroy")
