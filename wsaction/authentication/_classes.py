"""Who is at the other end of a connection, how that is found out, and until when it holds.

``authentication_classes`` are asked in their order, at the handshake (``authenticate``) and for each ``$auth`` frame
(``authenticate_data``). The first `Credential` counts: its user becomes ``scope["user"]``, its ``auth``
``scope["auth"]``. Where no class claims the handshake, what a middleware left there is kept. An offered credential that
nobody takes is refused, never treated as anonymous.

>>> class Tokens(BearerAuthentication):
...     async def verify(self, token: str) -> Credential | None:
...         row = await find_token(token)  # all that decides whether it is genuine comes first
...         return None if row is None else Credential(row.user, expires_at=row.expires_at)

No secret is told or logged. Bearer tokens are taken out of the scope once the handshake is decided, and what a class
raises loses every trace of them before anyone sees it (`wsaction.authentication._redaction`).
"""

import inspect
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from wsaction._utils.misspellings import refuse_misspelt
from wsaction.authentication._identity import is_somebody
from wsaction.exceptions import ImproperlyConfigured, NotAuthenticated

__all__ = (
    "BaseAuthentication",
    "BearerAuthentication",
    "Credential",
    "FirstFrameAuthentication",
    "Scope",
    "SessionAuthentication",
    "bearer_tokens",
    "is_bearer",
)

Scope = MutableMapping[str, Any]

BEARER = "bearer."  # before the token, in a sub-protocol
_VISIBLE_ASCII = r"[\x21-\x7e]{1,8192}"  # visible ASCII


@dataclass(frozen=True, slots=True)
class Credential:
    """A user, until when that holds (unix seconds; None: as long as the connection), and what ``scope["auth"]`` shall
    be, claims for example; ``auth`` is not in its repr.

    Raises ``ValueError`` for no user or an anonymous one, ``TypeError`` for an ``expires_at`` that is no number.
    """

    user: Any
    expires_at: float | None = None
    auth: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not is_somebody(self.user):
            raise ValueError("a Credential is for a user who is somebody; return None where there is nobody")
        value: Any = self.expires_at
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value)):
            raise TypeError(
                f"Credential.expires_at: expected unix seconds or None, got {type(value).__name__}; "
                "of a datetime, take .timestamp()"
            )


class BaseAuthentication:
    """One way to find out who somebody is. One instance serves all connections: keep nothing of them on it.

    Both methods return None for "nothing of mine came; ask the next", and raise `NotAuthenticated` for "it is mine, and
    it is bad", which is final. Verify first; believe what a credential claims after. Anything else that they raise is
    a bug: 500, logged without the credential.

    ``first_frame = True``: who has not authenticated at the handshake has to, by ``$auth`` within ``auth_timeout``,
    before anything else. ``secret_headers``: headers (lower case) that are taken out of the scope after the handshake.
    ``security_scheme``: what it is in the AsyncAPI document, a Security Scheme Object; without one, an ``apiKey`` where
    it takes ``$auth`` data, and else nothing is told of it.
    """

    first_frame: ClassVar[bool] = False
    secret_headers: ClassVar[Sequence[str]] = ()
    security_scheme: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_misspelt(cls)

    async def authenticate(self, scope: Scope) -> Credential | None:
        """Who opens the connection with this ASGI scope."""
        return None

    async def authenticate_data(self, data: Any) -> Credential | None:
        """Who sent ``{"action": "$auth", "data": data}``."""
        return None


class FirstFrameAuthentication(BaseAuthentication):
    """The first frame has to authenticate where the handshake did not.

    Put beside a class that takes ``$auth`` data, or subclassed with ``authenticate_data``:
    ``authentication_classes=[Tokens, FirstFrameAuthentication]``.
    """

    first_frame: ClassVar[bool] = True


class BearerAuthentication(BaseAuthentication, ABC):
    """A bearer token: from the sub-protocol ``bearer.<token>``, from ``Authorization: Bearer <token>``, or from
    ``$auth``, whose data is the token or ``{"token": ...}``.

    A browser offers ``["wsaction.v1", "bearer." + token]``; only ``wsaction.v1`` is ever answered. More than one token
    in a handshake is refused, whatever they say, and so is one that is not 1 to 8192 visible ASCII characters. Other
    authorization schemes are left to others.
    """

    secret_headers: ClassVar[Sequence[str]] = ("authorization",)
    security_scheme: ClassVar[Mapping[str, Any]] = {
        "type": "http",
        "scheme": "bearer",
        "description": "Offered as the sub-protocol `bearer.<token>` beside `wsaction.v1`, sent as the header "
        '`Authorization: Bearer <token>`, or sent in a frame: `{"action": "$auth", "data": "<token>"}`.',
    }

    @abstractmethod
    def verify(self, token: str) -> Credential | Awaitable[Credential | None] | None:
        """Whose token it is; None where it is not one of these. Sync ones run on the event loop: they must not
        wait."""

    async def authenticate(self, scope: Scope) -> Credential | None:
        offered = bearer_tokens(scope)
        if len(offered) > 1:
            raise NotAuthenticated("Several bearer tokens came; send one, as a sub-protocol or as a header.")
        return await self._verified(offered[0]) if offered else None

    async def authenticate_data(self, data: Any) -> Credential | None:
        if isinstance(data, dict) and "token" in data:
            return await self._verified(data["token"])
        return await self._verified(data) if isinstance(data, str) else None

    async def _verified(self, token: Any) -> Credential | None:
        if not isinstance(token, str) or not re.fullmatch(_VISIBLE_ASCII, token):
            raise NotAuthenticated("The bearer token is malformed.")
        credential: Credential | None = await _await_if_needed(self.verify(token))
        return credential


class SessionAuthentication(BaseAuthentication, ABC):
    """The session of Starlette's ``SessionMiddleware``, which has to be around the app.

    A browser sends the cookie whichever page opens the socket: keep the Origin check. Where ``SessionMiddleware`` calls
    its cookie otherwise than ``session``, say so in ``security_scheme``.
    """

    security_scheme: ClassVar[Mapping[str, Any]] = {
        "type": "httpApiKey",
        "in": "cookie",
        "name": "session",
        "description": "The cookie of a session, which the browser sends by itself.",
    }

    @abstractmethod
    def get_user(self, session: dict[str, Any]) -> Any:
        """Whose session it is: a user, or a `Credential` where it expires; None for nobody. Sync or async. Not asked
        for an empty session."""

    async def authenticate(self, scope: Scope) -> Credential | None:
        if "session" not in scope:
            raise ImproperlyConfigured(
                f"{type(self).__name__}: expected a session in the scope; put SessionMiddleware around the app"
            )
        found = await _await_if_needed(self.get_user(scope["session"])) if scope["session"] else None
        if isinstance(found, Credential):
            return found
        return Credential(found) if is_somebody(found) else None


def is_bearer(subprotocol: str) -> bool:
    """Whether an offered sub-protocol is a token."""
    return subprotocol[: len(BEARER)].lower() == BEARER


def bearer_tokens(scope: Scope) -> list[str]:
    """The bearer tokens of a handshake, as they came."""
    offered = [name[len(BEARER) :] for name in scope.get("subprotocols") or () if is_bearer(name)]
    for name, value in scope.get("headers", ()):
        scheme, *rest = value.decode("latin-1").split(None, 1) or ("",)
        if name.lower() == b"authorization" and scheme.lower() == "bearer":
            offered.append("".join(rest).rstrip())
    return offered


async def _await_if_needed(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
