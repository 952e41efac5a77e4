"""Authentication classes: who the user of a connection is, and until when.

The app asks its ``authentication_classes`` in order: ``authenticate`` at the handshake, ``authenticate_data`` for each
``$auth`` frame. The first `Credential` counts: its user becomes ``scope["user"]``, its ``auth`` ``scope["auth"]``. If
no class returns one at the handshake, the scope keeps the user that a middleware has set. If no class accepts a bearer
token or the data of ``$auth``, it is refused; the client is never treated as anonymous then.

>>> class Tokens(BearerAuthentication):
...     async def verify(self, token: str) -> Credential | None:
...         row = await find_token(token)  # check that the token is genuine before anything else
...         return None if row is None else Credential(row.user, expires_at=row.expires_at)

No secret is sent or logged. Bearer tokens are removed from the scope after authentication, and errors that a class
raises are redacted (`wsaction.authentication._redaction`).
"""

import inspect
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from wsaction._utils.asgi import Scope
from wsaction._utils.misspellings import refuse_misspelt
from wsaction.authentication._identity import is_somebody
from wsaction.exceptions import ImproperlyConfigured, NotAuthenticated

BEARER = "bearer."  # the prefix of a token in a sub-protocol
_VISIBLE_ASCII = r"[\x21-\x7e]{1,8192}"


@dataclass(frozen=True, slots=True)
class Credential:
    """A verified user: what an authentication class returns.

    :param user: The user, who becomes ``scope["user"]``.
    :param expires_at: When the credential expires, in unix seconds. The connection then closes with 4401, unless the
        client has sent a new credential with ``$auth``. None: as long as the connection is open.
    :param auth: The value of ``scope["auth"]``, such as the claims of a token. It is not in the repr.
    :raises ValueError: if the user is None or anonymous.
    :raises TypeError: if ``expires_at`` is not a number.

    >>> Credential(user, expires_at=claims["exp"], auth=claims)
    """

    user: Any
    expires_at: float | None = None
    auth: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not is_somebody(self.user):
            raise ValueError(
                "Credential.user: expected an authenticated user, got an anonymous one or None; return None instead of "
                "the Credential"
            )
        value: Any = self.expires_at
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value)):
            raise TypeError(
                f"Credential.expires_at: expected unix seconds or None, got {type(value).__name__}; "
                "use .timestamp() of a datetime"
            )


class BaseAuthentication:
    """The base class of authentication. Define `authenticate`, `authenticate_data` or both.

    Both methods return None if the client sent no credential of this kind; then the next class is asked. They raise
    `NotAuthenticated` if the credential is bad, which refuses the client. Verify a credential before you use what it
    claims. Any other exception becomes a 500, and is logged without the credential. One instance serves all
    connections, so keep no state of a connection on it.

    * ``first_frame``: whether a client that is not authenticated after the handshake must send ``$auth`` within
      ``auth_timeout`` seconds, before any other frame.
    * ``secret_headers``: names of headers, in lower case, that are removed from the scope after the handshake.
    * ``security_scheme``: the Security Scheme Object of this class in the AsyncAPI document. By default it is an
      ``apiKey`` for a class that takes ``$auth`` data; other classes are not in the document.
    """

    first_frame: ClassVar[bool] = False
    secret_headers: ClassVar[Sequence[str]] = ()
    security_scheme: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_misspelt(cls)

    async def authenticate(self, scope: Scope) -> Credential | None:
        """The credential in the handshake, which has this ASGI scope; None if there is none of this kind."""
        return None

    async def authenticate_data(self, data: Any) -> Credential | None:
        """The credential in the frame ``{"action": "$auth", "data": data}``; None if there is none of this kind."""
        return None


class FirstFrameAuthentication(BaseAuthentication):
    """Requires a client that did not authenticate in the handshake to do so in its first frame.

    List it next to a class that takes ``$auth`` data, or subclass it and define ``authenticate_data``.

    >>> WSAction(routes, authentication_classes=[Tokens, FirstFrameAuthentication])
    """

    first_frame: ClassVar[bool] = True


class BearerAuthentication(BaseAuthentication, ABC):
    """Bearer tokens, such as JSON Web Tokens. Subclass it and define `verify`.

    The token comes in the sub-protocol ``bearer.<token>``, in the header ``Authorization: Bearer <token>``, or in the
    data of ``$auth``, as the token itself or as ``{"token": ...}``. A browser offers ``["wsaction.v1", "bearer." +
    token]``; the server answers ``wsaction.v1`` alone.

    A handshake with more than one token is refused, as is a token that is not 1 to 8192 visible ASCII characters.
    Other authorization schemes are ignored.
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
        """The credential of a token; None if the token is not one of this class. It may be sync or async.

        A sync method runs on the event loop, so it must not block.
        """

    async def authenticate(self, scope: Scope) -> Credential | None:
        offered = bearer_tokens(scope)
        if len(offered) > 1:
            raise NotAuthenticated("The handshake has several bearer tokens; send one, as a sub-protocol or a header.")
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
    """The session cookie of Starlette's ``SessionMiddleware``, which must wrap the app. Define `get_user`.

    Keep the Origin check: a browser sends the cookie no matter which page opens the socket. If the cookie of the
    middleware is not named ``session``, set its name in ``security_scheme``.
    """

    security_scheme: ClassVar[Mapping[str, Any]] = {
        "type": "httpApiKey",
        "in": "cookie",
        "name": "session",
        "description": "The cookie of a session, which the browser sends by itself.",
    }

    @abstractmethod
    def get_user(self, session: dict[str, Any]) -> Any:
        """The user of a session, or a `Credential` if that expires; None for an anonymous session. Sync or async.

        It is not called for an empty session.
        """

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
    """The bearer tokens of a handshake, unverified."""
    offered = [name[len(BEARER) :] for name in scope.get("subprotocols") or () if is_bearer(name)]
    for name, value in scope.get("headers", ()):
        scheme, *rest = value.decode("latin-1").split(None, 1) or ("",)
        if name.lower() == b"authorization" and scheme.lower() == "bearer":
            offered.append("".join(rest).rstrip())
    return offered


async def _await_if_needed(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
