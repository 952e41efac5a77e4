"""Throttles: how often a user, an address or a connection may call actions, as token buckets.

A throttle has a rate and a key, which selects a bucket. ``"100/min"`` is a bucket of 100 tokens that refills evenly: it
allows 100 frames at once, then one every 0.6 s. A frame that finds its bucket empty takes no token and gets a 429
``throttled``. Its ``ctx.retry_after`` is the time in seconds until the next token.

``throttle_classes`` are checked after the permissions, so that refused users take no tokens. They are checked before
the parameters, so that invalid frames count too, as do those for unknown actions and routes. The outermost handler's
throttles come first, then each tuple from left to right, until one refuses. Tokens that earlier throttles took are not
given back: that would take a second request to a shared store, and could not be atomic. So put the throttle that
refuses most often first. If several handlers on the way to an action have the same throttle (class, scope and rate), it
is checked once, for the outermost of them.

============================  ==========================================================================
`UserRateThrottle`            a bucket for each user, or for each address of anonymous clients
`AnonRateThrottle`            a bucket for each address, for anonymous clients only
`ScopedRateThrottle`          as `UserRateThrottle`, with a rate for the handler's ``throttle_scope``
`ConnectionRateThrottle`      a bucket for each connection, deleted with it
============================  ==========================================================================

>>> class Chat(AsyncAPIConsumer):
...     throttle_classes = (ConnectionRateThrottle("50/s"), UserRateThrottle("1000/hour"))
...
...     @async_action(throttle_classes=(UserRateThrottle("5/min", scope="invite"),))
...     async def invite(self, name: str) -> None: ...
"""

import copy
import heapq
import inspect
import re
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

from wsaction._utils.hints import did_you_mean
from wsaction._utils.misspellings import defined_by_user, refuse_misspelt
from wsaction.authentication._identity import is_authenticated, throttle_id
from wsaction.exceptions import ImproperlyConfigured, Throttled

__all__ = (
    "AnonRateThrottle",
    "BaseThrottle",
    "ConnectionRateThrottle",
    "MemoryThrottleStore",
    "Rate",
    "ScopedRateThrottle",
    "SimpleRateThrottle",
    "ThrottleStore",
    "Throttles",
    "UserRateThrottle",
    "check_throttles",
    "compile_throttles",
)

_RATE = r"\s*([0-9]{1,9})\s*/\s*([0-9]{0,9})\s*([a-z]+)\s*"
_NAMES = {1: "s sec second", 60: "m min minute", 3_600: "h hour", 86_400: "d day"}
_UNITS = {name: seconds for seconds, names in _NAMES.items() for name in names.split()}
_TOLERANCE = 1e-6  # seconds; without it, rounding could refuse a client that waited exactly retry_after
_SWEEP = 4  # buckets to check for each token taken; more than one, so that full buckets go faster than new ones come


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate: ``burst`` tokens, refilled evenly in ``period`` seconds. ``Rate.parse("10/5s") == Rate(10, 5)``."""

    burst: int
    period: float

    @classmethod
    def parse(cls, text: Any, *, owner: str = "a rate") -> "Rate":
        """Parses ``"100/min"`` or ``"10/5s"``. Units are s, sec, second, m, min, minute, h, hour, d and day.

        Raises `ImproperlyConfigured` for any other text; its message begins with ``owner``.
        """
        match = re.fullmatch(_RATE, text) if isinstance(text, str) else None
        if match is None or match[3] not in _UNITS or 0 in (burst := int(match[1]), times := int(match[2] or 1)):
            expected = f"a rate such as '100/min' or '10/5s', numbers above 0, a unit of {', '.join(_UNITS)}"
            raise ImproperlyConfigured(f"{owner}: expected {expected}; got {text!r}")
        return cls(burst, times * _UNITS[match[3]])


class ThrottleStore(Protocol):
    """Interface of a store of buckets. `MemoryThrottleStore` serves one process; Redis can serve several."""

    def take(self, key: str, rate: Rate) -> float | Awaitable[float]:
        """Takes a token from the bucket ``key``, atomically.

        Returns 0.0 if it took one, else the seconds until there will be one. It may return an awaitable of that. A new
        bucket is full. A key always comes with the same rate. The store uses its own clock.
        """


class MemoryThrottleStore:
    """The buckets of one process, at most ``max_keys``. A bucket that is full again is dropped.

    If too many buckets are not full, the one that would be full first is dropped. So a client that uses ever new
    addresses does not drop the bucket of one that used up its tokens. ``clock`` returns seconds that never decrease.
    The store is thread-safe. Raises ``ValueError`` for a ``max_keys`` below 1.
    """

    __slots__ = ("_by_time", "_clock", "_full_at", "_lock", "max_keys")

    def __init__(self, max_keys: int = 10_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        if type(max_keys) is not int or max_keys < 1:
            raise ValueError(f"MemoryThrottleStore(max_keys=...) is a whole number above 0, not {max_keys!r}")
        self.max_keys = max_keys
        self._clock = clock
        self._lock = threading.Lock()
        self._full_at: dict[str, float] = {}  # with the rate, it is the whole state of a bucket
        self._by_time: list[tuple[float, str]] = []  # a heap with each key once; its time may be out of date: too early

    def __len__(self) -> int:
        """The number of buckets in the store."""
        return len(self._full_at)

    def take(self, key: str, rate: Rate) -> float:
        """Takes a token from the bucket ``key``; see `ThrottleStore.take`."""
        with self._lock:
            now = self._clock()
            for _ in range(_SWEEP):
                if not self._by_time or self._by_time[0][0] > now:
                    break
                self._forget_first()
            known = self._full_at.get(key)
            full_at = (now if known is None or known < now else known) + rate.period / rate.burst
            if (wait := full_at - now - rate.period) > _TOLERANCE:
                return wait
            if known is None:
                while len(self._full_at) >= self.max_keys:
                    self._forget_first()
                heapq.heappush(self._by_time, (full_at, key))
            self._full_at[key] = full_at
            return 0.0

    def _forget_first(self) -> None:
        """Drops the first bucket of the heap; if it lost a token since, moves it to its new place instead."""
        noted, key = self._by_time[0]
        if (full_at := self._full_at[key]) > noted:
            heapq.heapreplace(self._by_time, (full_at, key))
        else:
            heapq.heappop(self._by_time)
            del self._full_at[key]


class BaseThrottle:
    """Base class of all throttles. A subclass overrides `wait`; one instance serves all frames concurrently.

    Raises `ImproperlyConfigured` for a subclass with a misspelt attribute.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_misspelt(cls)
        if hasattr(cls, "allow_request") and not defined_by_user(cls, "wait"):
            raise ImproperlyConfigured(
                f"{cls.__name__}.allow_request would never be called; expected wait(scope, handler, action), which "
                "returns the seconds to wait, or 0.0 if the action may be called now"
            )

    def wait(self, scope: Any, handler: Any, action: str) -> float | Awaitable[float]:
        """Counts the call and returns 0.0 if the action may be called now, else the seconds to wait. May be async."""
        raise NotImplementedError(f"{type(self).__name__}.wait(scope, handler, action) is missing")

    def bound(self, owner: str, throttle_scope: str | None) -> "BaseThrottle | None":
        """The throttle to use for a handler; None if it does not throttle there. ``owner`` names it in errors."""
        return self

    def counts_as(self) -> Hashable:
        """A key of the throttle: of several with the same key, only the first is checked for a frame."""
        return self


def _check(owner: str, throttle: Any) -> None:
    """Raises `ImproperlyConfigured` for invalid attributes of a throttle or of its class."""
    rates = {f"THROTTLE_RATES[{scope!r}]": rate for scope, rate in throttle.THROTTLE_RATES.items()}
    for name, rate in {"rate": throttle.rate, **rates}.items():
        if rate is not None:
            Rate.parse(rate, owner=f"{owner}.{name}")
    if not isinstance(throttle.scope, str | None):
        raise ImproperlyConfigured(f"{owner}.scope: expected a string, got {throttle.scope!r}; name the buckets")
    if type(count := throttle.num_proxies) is not int or count < 0:
        raise ImproperlyConfigured(f"{owner}.num_proxies: expected a whole number, got {count!r}; 0 trusts none")
    if inspect.iscoroutinefunction(throttle.get_cache_key):
        what = "a plain function, got a coroutine function; override wait(), which may be async"
        raise ImproperlyConfigured(f"{owner}.get_cache_key: expected {what}")


class SimpleRateThrottle(BaseThrottle):
    """A throttle with a rate. A subclass overrides `get_cache_key`, which selects the bucket for a frame.

    * ``rate``: attribute or argument, such as ``"100/min"``. Without one, ``THROTTLE_RATES[scope]`` counts; None there
      means no throttling.
    * ``scope``: keeps the buckets of this throttle apart from those of others.
    * ``store``: holds the buckets. Set ``SimpleRateThrottle.store`` to change it for all throttles.
    * ``num_proxies``: the number of proxies in front of the server that append to ``X-Forwarded-For``. With 0, that
      header is ignored and the address is ``scope["client"]``.

    Raises `ImproperlyConfigured` for invalid attributes at declaration, and for a missing rate at mounting.
    """

    rate: str | None = None
    scope: str | None = None
    THROTTLE_RATES: ClassVar[Mapping[str, str | None]] = {}
    num_proxies: ClassVar[int] = 0
    store: ClassVar[ThrottleStore] = MemoryThrottleStore()

    limit: Rate  # this and the prefix of its keys are set by `bound`
    _prefix: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check(cls.__name__, cls)

    def __init__(self, rate: str | None = None, *, scope: str | None = None) -> None:
        if rate is not None:
            self.rate = rate
        if scope is not None:
            self.scope = scope
        _check(type(self).__name__, self)

    def get_cache_key(self, scope: Any, handler: Any, action: str) -> str | None:
        """The key of the bucket; None for no throttling. `wait` adds the throttle's scope and rate to it."""
        raise NotImplementedError(f"{type(self).__name__}.get_cache_key(scope, handler, action) is missing")

    def get_rate(self) -> str | None:
        """The declared rate; None for no throttling. Called at mounting."""
        if self.rate is not None:
            return self.rate
        if (scope := str(self.scope)) in self.THROTTLE_RATES:
            return self.THROTTLE_RATES[scope]
        raise ImproperlyConfigured(
            f"{type(self).__name__}: expected a rate, as in rate = '100/min', or THROTTLE_RATES[{self.scope!r}]; got "
            f"neither; {did_you_mean(scope, self.THROTTLE_RATES, 'THROTTLE_RATES has')}"
        )

    def get_ident(self, scope: Any) -> str:
        """The client's address. If the server has none, as with a Unix socket, all clients share one bucket."""
        if self.num_proxies:
            header = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
            if addresses := [text for part in header.decode("latin-1").split(",") if (text := part.strip())]:
                return addresses[-min(self.num_proxies, len(addresses))]
        return str((scope.get("client") or ("unknown",))[0])

    def wait(self, scope: Any, handler: Any, action: str) -> float | Awaitable[float]:
        """Takes a token from the bucket of `get_cache_key`; returns 0.0, or the seconds to wait."""
        key = self.get_cache_key(scope, handler, action)
        return 0.0 if key is None else self.store.take(self._prefix + key, self.limit)

    def bound(self, owner: str, throttle_scope: str | None) -> "SimpleRateThrottle | None":
        """A copy with its rate parsed; None if it has no rate."""
        if (rate := self.get_rate()) is None:
            return None
        throttle = copy.copy(self)
        throttle.limit = limit = Rate.parse(rate, owner=f"{owner}, {type(self).__name__}")
        throttle._prefix = f"{self.scope}:{limit.burst}/{limit.period}:"
        return throttle

    def counts_as(self) -> Hashable:
        """The class, the scope and the rate."""
        return type(self), self._prefix


class UserRateThrottle(SimpleRateThrottle):
    """A bucket for each user; for anonymous clients, a bucket for each address.

    ``WSAction(user_id=...)`` identifies a user; otherwise the first of ``pk``, ``id``, ``identity`` and ``username``
    that the user has. Raises ``TypeError`` for a user without any of them.
    """

    scope: str | None = "user"

    def get_cache_key(self, scope: Any, handler: Any, action: str) -> str | None:
        """The user's id, or the client's address."""
        user_id = throttle_id(scope) if is_authenticated(scope.get("user")) else None
        return f"addr:{self.get_ident(scope)}" if user_id is None else f"user:{user_id}"


class AnonRateThrottle(SimpleRateThrottle):
    """A bucket for each address of anonymous clients. Authenticated users are not throttled."""

    scope = "anon"

    def get_cache_key(self, scope: Any, handler: Any, action: str) -> str | None:
        """The client's address; None for an authenticated user."""
        return None if is_authenticated(scope.get("user")) else f"addr:{self.get_ident(scope)}"


class ScopedRateThrottle(UserRateThrottle):
    """A `UserRateThrottle` whose scope is the handler's ``throttle_scope``, with its rate in ``THROTTLE_RATES``.

    Handlers without a ``throttle_scope`` are not throttled.

    >>> class Scoped(ScopedRateThrottle):
    ...     THROTTLE_RATES = {"uploads": "20/day", "search": "10/5s"}
    """

    scope: str | None = None

    def bound(self, owner: str, throttle_scope: str | None) -> SimpleRateThrottle | None:
        """A copy with the handler's scope; None for a handler without one."""
        throttle = copy.copy(self)
        throttle.scope = throttle_scope if self.scope is None else self.scope
        if throttle.scope is None:
            return None
        _check(owner, throttle)
        return super(ScopedRateThrottle, throttle).bound(owner, None)


class ConnectionRateThrottle(SimpleRateThrottle):
    """A bucket for each connection. It lives in the connection, not in ``store``, and is deleted with it.

    A subclass may return several keys, to have a bucket for each route, for example; a connection keeps 64 of them.
    """

    scope = "connection"
    clock: ClassVar[Callable[[], float]] = time.monotonic

    def get_cache_key(self, scope: Any, handler: Any, action: str) -> str | None:
        """The same key for all frames of a connection."""
        return ""

    def wait(self, scope: Any, handler: Any, action: str) -> float:
        """Takes a token from a bucket of the connection; returns 0.0, or the seconds to wait."""
        if (key := self.get_cache_key(scope, handler, action)) is None:
            return 0.0
        attributes = vars(handler.consumer)
        if (store := attributes.get("_throttle_store")) is None:
            store = attributes["_throttle_store"] = MemoryThrottleStore(64, clock=type(self).clock)
        return store.take(self._prefix + key, self.limit)  # type: ignore[no-any-return]  # a MemoryThrottleStore


Throttles: TypeAlias = tuple[BaseThrottle, ...]


def compile_throttles(classes: Any, *, owner: str, throttle_scope: str | None = None) -> Throttles:
    """Makes instances of ``throttle_classes`` with their rates, without those that do not throttle.

    ``owner`` names them in errors ("CardHandler.throttle_classes"). Raises `ImproperlyConfigured`.
    """
    if not isinstance(classes, list | tuple):
        cure = "did you forget the comma? (UserRateThrottle,) is a tuple"
        raise ImproperlyConfigured(f"{owner}: expected a tuple or list of throttles, got {classes!r}; {cure}")
    bound = (_throttle(entry, owner).bound(owner, throttle_scope) for entry in classes)
    return tuple(throttle for throttle in bound if throttle is not None)


def _throttle(entry: Any, owner: str) -> BaseThrottle:
    throttle = entry() if isinstance(entry, type) and issubclass(entry, BaseThrottle) else entry
    if isinstance(throttle, BaseThrottle):
        _check_answers(owner, throttle)
        return throttle
    cure = "as in UserRateThrottle('100/min')" if isinstance(entry, str) else "derive it from BaseThrottle"
    raise ImproperlyConfigured(f"{owner}: expected a throttle class, or an instance of one, got {entry!r}; {cure}")


def _check_answers(owner: str, throttle: BaseThrottle) -> None:
    """Raises `ImproperlyConfigured` for a throttle whose method is missing or takes other arguments."""
    names = ["wait"]
    if isinstance(throttle, SimpleRateThrottle) and not defined_by_user(type(throttle), "wait"):
        names.append("get_cache_key")
    for name in names:
        method = getattr(throttle, name)
        expected = f"{type(throttle).__name__} to define {name}(scope, handler, action)"
        if method.__func__ in (BaseThrottle.wait, SimpleRateThrottle.get_cache_key):
            raise ImproperlyConfigured(f"{owner}: expected {expected}, got none")
        try:
            inspect.signature(method).bind(None, None, None)
        except TypeError as exc:
            raise ImproperlyConfigured(f"{owner}: expected {expected}, got {method!r}: {exc}") from exc


async def check_throttles(throttles: Throttles, scope: Any, handler: Any, action: Any) -> None:
    """Checks throttles in order; raises `Throttled` at the first that refuses. Suspends only if a store does."""
    for throttle in throttles:
        wait = throttle.wait(scope, handler, action)
        if not isinstance(wait, float | int):
            wait = await wait
        if isinstance(wait, bool):  # False counts as 0.0: a throttle that means to refuse would allow
            raise TypeError(f"{type(throttle).__name__}.wait returned {wait}; return the seconds to wait, or 0.0")
        if wait > 0:
            raise Throttled(wait=wait)
