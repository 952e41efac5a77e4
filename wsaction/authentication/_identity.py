"""Who a user is: whether somebody has signed in, and the id that names them. No other module decides this.

Authentication, permissions, throttling and the connections of a user (`disconnect_user`, `push_user`) ask here. The
last, `_events.users`, compares ids as texts, since one may come from another process: 7 and ``"7"`` are one user.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from wsaction._protocol.scope import USER_ID_KEY

_ID_NAMES = ("pk", "id", "identity")


def is_authenticated(user: Any, *, default: bool = False) -> bool:
    """Whether ``user.is_authenticated``, a property or a method, is true; ``default`` for a user without it.

    Raises ``TypeError`` if the answer has to be awaited: it would always count as true.
    """
    answer = getattr(user, "is_authenticated", default)
    if callable(answer):
        answer = answer()
    if not isinstance(answer, bool) and inspect.isawaitable(answer):
        name = type(user).__qualname__
        raise TypeError(f"{name}.is_authenticated: expected True or False, got an awaitable; keep the result")
    return bool(answer)


def is_somebody(user: Any) -> bool:
    """Whether a user whom the application itself named is not anonymous: such users need no ``is_authenticated``."""
    return user is not None and is_authenticated(user, default=True)


def user_id(user: Any) -> Any:
    """The id of a user: ``pk``, ``id`` or ``identity``, the first that is not None; None for anonymous users.

    Raises ``TypeError`` for a user who has none of them.
    """
    if not is_somebody(user):
        return None
    if (value := _first_id(user, *_ID_NAMES)) is None:
        raise TypeError(
            f"expected {type(user).__name__} to have a pk, id or identity; give it one, or say who it is: "
            "WSAction(user_id=lambda user: user.email)"
        )
    return value


def owner_id(scope: Mapping[str, Any]) -> Any:
    """The id of the scope's user, to compare with an object's owner: by ``WSAction(user_id=...)``, else by `user_id`.

    None if the user's first id is None: a user who is not saved yet owns nothing, even under their ``identity``.
    """
    user = scope["user"]
    if (app_user_id := scope.get(USER_ID_KEY)) is not None:
        return app_user_id(user)
    return None if next(_ids(user, *_ID_NAMES), user) is None else user_id(user)


def throttle_id(scope: Mapping[str, Any]) -> Any:
    """The id that throttles count the scope's user by: as `owner_id`, but the first id that is not None, and last the
    ``username``. Raises ``TypeError`` for a user who has none of them."""
    user = scope["user"]
    if (app_user_id := scope.get(USER_ID_KEY)) is not None:
        return app_user_id(user)
    if (value := _first_id(user, *_ID_NAMES, "username")) is None:
        raise TypeError(
            f"throttling: expected a user with pk, id, identity or username, got {type(user).__name__}; add one, say "
            "who it is by WSAction(user_id=...), or override get_cache_key"
        )
    return value


def _first_id(user: Any, *names: str) -> Any:
    return next((value for value in _ids(user, *names) if value is not None), None)


def _ids(user: Any, *names: str) -> Iterator[Any]:
    for name in names:
        with suppress(AttributeError, NotImplementedError):  # the latter of Starlette's BaseUser, for its identity
            yield getattr(user, name)
