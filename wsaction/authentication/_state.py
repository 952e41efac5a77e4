"""The authentication of an app (`Authenticator`) and of one connection (`AuthenticationState`).

`Authenticator.open` authenticates a handshake and returns the connection's `AuthenticationState`. That decides whether
a frame may run (`gate`), answers ``$auth`` (`present`), and knows when the connection must close (`deadline`,
`overdue`).
"""

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import isawaitable
from typing import Any

from wsaction._protocol.close_codes import NOT_AUTHENTICATED
from wsaction._utils.asgi import Scope
from wsaction._utils.tasks import is_being_cancelled
from wsaction.authentication._classes import (
    BaseAuthentication,
    BearerAuthentication,
    Credential,
    bearer_tokens,
    is_bearer,
)
from wsaction.authentication._identity import is_authenticated, user_id
from wsaction.authentication._redaction import texts, without_secrets
from wsaction.exceptions import (
    ActionNotAllowed,
    APIError,
    Busy,
    ImproperlyConfigured,
    NotAuthenticated,
    PermissionDenied,
    one_line,
)

logger = logging.getLogger("wsaction")


class Authenticator:
    """The authentication classes of an app, read once.

    ``classes`` are subclasses or instances of `BaseAuthentication`. ``user_id`` returns the id of a user, ``clock`` the
    time in unix seconds. Raises `ImproperlyConfigured` for anything else in ``classes``.
    """

    def __init__(
        self,
        classes: Iterable[Any] = (),
        *,
        user_id: Callable[[Any], Any] = user_id,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(classes, str) or not isinstance(classes, Iterable):
            raise ImproperlyConfigured(
                f"authentication_classes: expected a list, as in [TokenAuthentication], got {classes!r}"
            )
        self.classes = tuple(map(_instance, classes))
        self._data_classes = tuple(scheme for scheme in self.classes if _takes_data(scheme))
        self._bearer = any(isinstance(scheme, BearerAuthentication) for scheme in self.classes)
        self._secret_headers = {name.lower().encode() for scheme in self.classes for name in scheme.secret_headers}
        self.user_id = user_id
        self.clock = clock
        self.first_frame = any(scheme.first_frame for scheme in self.classes)
        if self.first_frame and not self._data_classes:
            raise ImproperlyConfigured(
                "authentication_classes: expected a class that takes $auth, because first_frame requires it, got none; "
                "define authenticate_data, or add a BearerAuthentication"
            )

    @property
    def takes_data(self) -> bool:
        """Whether an ``$auth`` frame may authenticate."""
        return bool(self._data_classes)

    async def open(self, scope: Scope, auth_timeout: float) -> "AuthenticationState":
        """Authenticates a handshake: sets ``scope["user"]`` and ``scope["auth"]``, and removes the secrets.

        Raises `NotAuthenticated` for a bad credential, and `Busy` after ``auth_timeout`` seconds.
        """
        try:
            state = AuthenticationState(self, scope, auth_timeout)
            credential = await self._ask(self.classes, "authenticate", scope, self._secrets(scope), auth_timeout)
            if isinstance(credential, Exception):
                raise credential
            if credential is not None:
                state.take(credential)
            elif self._bearer and bearer_tokens(scope):
                raise NotAuthenticated("The bearer token was not accepted.")
        except APIError as exc:
            fields = {"path": scope.get("path"), "status": exc.status}
            logger.info("handshake of %s refused: %s", one_line(str(scope.get("path"))), exc, extra=fields)
            raise
        finally:
            self._conceal(scope)
        return state

    async def verify_data(self, data: Any, auth_timeout: float) -> Credential:
        """The credential of an ``$auth`` frame's data. Raises `NotAuthenticated` if no class accepts it."""
        if not self._data_classes:
            raise ActionNotAllowed("This app does not take $auth; authenticate in the handshake.")
        credential = await self._ask(self._data_classes, "authenticate_data", data, texts(data), auth_timeout)
        if isinstance(credential, Credential):
            return credential
        raise credential or NotAuthenticated("The credential was not accepted.")

    async def _ask(
        self, classes: Sequence[BaseAuthentication], method: str, argument: Any, secrets: Iterable[str], seconds: float
    ) -> Credential | Exception | None:
        """The first answer of a class that is not None.

        An exception is returned and not raised: raised here, its context and traceback would hold secrets.
        """
        where = ""
        try:
            async with asyncio.timeout(seconds) as timeout:
                for scheme in classes:
                    where = f"{type(scheme).__name__}.{method}"
                    answer = getattr(scheme, method)(argument)
                    if isawaitable(answer):
                        answer = await answer
                    if isinstance(answer, Credential):
                        return answer
                    if answer is not None:
                        raise TypeError(f"{where}: expected a Credential or None, got {type(answer).__name__}")
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as exc:  # if a task that the class awaited was cancelled, that is an ordinary failure
            if isinstance(exc, asyncio.CancelledError) and is_being_cancelled():
                exc.args = ()
                exc.__cause__ = exc.__context__ = None
                raise
            if isinstance(exc, TimeoutError) and timeout.expired():
                logger.warning("%s took longer than %g s", where, seconds)
                return Busy("Authentication took too long.", {"limit": "auth_timeout", "value": seconds})
            return without_secrets(exc, set(secrets), where)
        return None

    def _secrets(self, scope: Scope) -> Iterator[str]:
        """The parts of the handshake that may be secrets."""
        yield from (name.partition(".")[2] for name in scope.get("subprotocols") or () if is_bearer(name))
        names = {b"authorization", b"proxy-authorization", b"cookie", *self._secret_headers}
        values = [value for name, value in scope.get("headers", ()) if name.lower() in names]
        for value in (*values, scope.get("query_string", b"")):
            for part in re.split(r"[\s;,&]+", value.decode("latin-1")):
                if part.lower() not in ("basic", "bearer"):
                    yield from (part, part.partition("=")[2])

    def _conceal(self, scope: Scope) -> None:
        """Removes the secrets from the scope, because an application may log it."""
        scope["subprotocols"] = [name for name in scope.get("subprotocols") or () if not is_bearer(name)]
        scope["headers"] = [
            (name, _without_bearer(value) if name.lower() == b"sec-websocket-protocol" else value)
            for name, value in scope.get("headers", ())
            if name.lower() not in self._secret_headers
        ]


class AuthenticationState:
    """Whether a connection is authenticated, as which user, and until when. It has no timer and no task.

    ``deadline``, in unix seconds, is when the connection must close with the code `overdue`, unless it authenticates
    before; None: never.
    """

    __slots__ = ("_admitted", "_authenticator", "_clock", "_presenting", "_scope", "_timeout", "credential", "deadline")

    def __init__(self, authenticator: Authenticator, scope: Scope, auth_timeout: float) -> None:
        self._authenticator = authenticator
        self._scope = scope
        self._timeout = auth_timeout
        self._clock = authenticator.clock
        self._presenting = False
        self._admitted = not authenticator.first_frame or is_authenticated(scope.get("user"))
        self.credential: Credential | None = None  # None: anonymous, or a middleware has set the user
        self.deadline: float | None = None if self._admitted else self._clock() + auth_timeout

    @property
    def user(self) -> Any:
        """``scope["user"]``, or None."""
        return self._scope.get("user")

    @property
    def awaited(self) -> bool:
        """Whether it has yet to authenticate."""
        return not self._admitted

    @property
    def time_left(self) -> float | None:
        """Seconds until the deadline, negative after it; None if there is none."""
        return None if self.deadline is None else self.deadline - self._clock()

    @property
    def overdue(self) -> tuple[int, str] | None:
        """The close code and reason, once the deadline has passed."""
        if (left := self.time_left) is None or left > 0:
            return None
        reason = f"no $auth came; auth_timeout is {self._timeout} s" if self.awaited else "the credential has expired"
        return NOT_AUTHENTICATED, reason

    def gate(self, action: str | None) -> APIError | None:
        """The error that refuses a frame, or None. ``action`` is None for a malformed frame."""
        if self.deadline is None or (self._admitted and self._clock() < self.deadline):
            return None  # the usual case, first because this runs for each frame
        if (overdue := self.overdue) is not None:
            return NotAuthenticated(f"It is too late: {overdue[1]}.")
        if action == "$auth":
            return None
        return NotAuthenticated('Authenticate first: {"action": "$auth", "data": ...}.')

    async def present(self, data: Any) -> dict[str, Any]:
        """Answers ``$auth``, which authenticates or refreshes. Returns the reply's data, ``{"expires_at": ...}``.

        Raises `NotAuthenticated` for a bad or late credential, `PermissionDenied` for one of another user, and `Busy`
        while another ``$auth`` is being verified. If it raises, the old credential stays in force.
        """
        if self._presenting:
            raise Busy("An $auth is being verified on this connection; wait for its reply.")
        self._presenting = True
        try:
            credential = await self._authenticator.verify_data(data, self._timeout)
        finally:
            self._presenting = False
        if (refused := self.gate("$auth")) is not None:
            raise refused
        if self.credential is not None or is_authenticated(self.user):
            user_id = self._authenticator.user_id
            if (current_id := user_id(self.user)) is None or current_id != user_id(credential.user):
                raise PermissionDenied("This connection is another user's; open a new one.", {"code": "user_changed"})
        self.take(credential)
        return {"expires_at": self.deadline}

    def take(self, credential: Credential) -> None:
        """Puts a credential in force, without a check of the user. Raises `NotAuthenticated` if it has expired."""
        expires_at = credential.expires_at
        if expires_at is not None and expires_at <= self._clock():
            raise NotAuthenticated("The credential has expired.")
        self.credential = credential
        self.deadline = None if expires_at == math.inf else expires_at
        self._admitted = True
        self._scope["user"], self._scope["auth"] = credential.user, credential.auth


def _without_bearer(offered: bytes) -> bytes:
    names = (name.strip() for name in offered.decode("latin-1").split(","))
    return ", ".join(name for name in names if not is_bearer(name)).encode("latin-1")


def _takes_data(scheme: BaseAuthentication) -> bool:
    return type(scheme).authenticate_data is not BaseAuthentication.authenticate_data


def _instance(entry: Any) -> BaseAuthentication:
    try:
        scheme = entry() if isinstance(entry, type) else entry
    except TypeError as exc:
        raise ImproperlyConfigured(
            f"authentication_classes: expected a class that takes no arguments, got {entry.__name__}: {exc}; pass an "
            "instance"
        ) from exc
    if not isinstance(scheme, BaseAuthentication):
        raise ImproperlyConfigured(
            f"authentication_classes: expected subclasses of BaseAuthentication or instances, got {entry!r}"
        )
    if not (
        scheme.first_frame or _takes_data(scheme) or type(scheme).authenticate is not BaseAuthentication.authenticate
    ):
        raise ImproperlyConfigured(
            f"authentication_classes: expected {type(scheme).__name__} to define authenticate or authenticate_data, "
            "got neither; define one, or remove the class from the list"
        )
    return scheme
