"""How often: throttle classes, and the token buckets that they take from.

A throttle names whose bucket a frame takes a token from, and a rate. ``"100/min"`` is a bucket of 100 tokens that fills
up evenly, one token each 0.6 s: 100 frames at once, then one each 0.6 s. A frame that finds its bucket empty is
answered 429 ``throttled`` with ``ctx.retry_after``, the seconds after which the next token is there, and takes nothing.

``throttle_classes`` are asked after the permissions (who may not act takes no tokens) and before parameters are looked
at, so that wrong frames count too, as do those for actions and routes that do not exist. The outermost handler's come
first, each tuple from left to right, and the first refusal ends it. What earlier throttles took of a frame that a later
one refuses is not given back: that would be a second question to a shared store, and could not be had at once with the
first; so the one that refuses most often belongs first. A throttle that several handlers on the way to an action
name (same class, scope and rate) is asked once, for the outermost of them.

============================  ==========================================================================
`UserRateThrottle`            a bucket for each user; for each address where nobody is authenticated
`AnonRateThrottle`            a bucket for each address, of those who are not authenticated only
`ScopedRateThrottle`          as `UserRateThrottle`, the rate found by the handler's ``throttle_scope``
`ConnectionRateThrottle`      a bucket for each connection, gone with it
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
from difflib import get_close_matches
from typing import Any, ClassVar, Protocol, TypeAlias

from wsaction._utils.misspellings import defined_by_user, refuse_misspelt
from wsaction.authentication._identity import counted_id, is_authenticated
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
_CLOSE = 1e-6  # seconds; a token that is this near is there, so that who waits for retry_after is not a rounding short
_SWEPT = 4  # buckets looked at for each token taken, so that those which are full go faster than new ones come


@dataclass(frozen=True, slots=True)
class Rate:
    """A bucket of ``burst`` tokens, filled evenly within ``period`` seconds. ``Rate.parse("10/5s") == Rate(10, 5)``."""

    burst: int
    period: float

    @classmethod
    def parse(cls, text: Any, *, owner: str = "a rate") -> "Rate":
        """Reads ``"100/min"`` and ``"10/5s"``. Raises `ImproperlyConfigured` for anything else, naming ``owner``."""
        match = re.fullmatch(_RATE, text) if isinstance(text, str) else None
        if match is None or match[3] not in _UNITS or 0 in (burst := int(match[1]), times := int(match[2] or 1)):
            expected = f"a rate such as '100/min' or '10/5s', numbers above 0, a unit of {', '.join(_UNITS)}"
            raise ImproperlyConfigured(f"{owner}: expected {expected}; got {text!r}")
        return cls(burst, times * _UNITS[match[3]])


class ThrottleStore(Protocol):
    """Where buckets are kept. One that several processes share awaits; one in the process answers at once."""

    def take(self, key: str, rate: Rate) -> float | Awaitable[float]:
        """Takes a token from the bucket ``key``, at once with looking whether there is one.

        0.0 where it was taken; else the seconds until there will be one, and nothing was taken. A bucket that was never
        seen is full. One key always comes with the same rate. The clock is the store's own.
        """


class MemoryThrottleStore:
    """The buckets of this process: at most ``max_keys``, and those that are full again are forgotten.

    Where more than that are not full, the one that would be soonest is forgotten: those who come from ever new
    addresses push each other out, and not who used up a bucket. ``clock`` gives seconds that never go back. Threads may
    share it. Raises ``ValueError`` for a ``max_keys`` below 1.
    """

    __slots__ = ("_by_time", "_clock", "_full_at", "_lock", "max_keys")

    def __init__(self, max_keys: int = 10_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        if type(max_keys) is not int or max_keys < 1:
            raise ValueError(f"MemoryThrottleStore(max_keys=...) is a whole number above 0, not {max_keys!r}")
        self.max_keys, self._clock, self._lock = max_keys, clock, threading.Lock()
        self._full_at: dict[str, float] = {}  # all that is to be known of a bucket of a known rate
        self._by_time: list[tuple[float, str]] = []  # a heap with each key once, its time as it once was or later is

    def __len__(self) -> int:
        """How many buckets are kept."""
        return len(self._full_at)

    def take(self, key: str, rate: Rate) -> float:
        with self._lock:
            now = self._clock()
            for _ in range(_SWEPT):
                if not self._by_time or self._by_time[0][0] > now:
                    break
                self._forget_first()
            known = self._full_at.get(key)
            full_at = (now if known is None or known < now else known) + rate.period / rate.burst
            if (wait := full_at - now - rate.period) > _CLOSE:
                return wait
            if known is None:
                while len(self._full_at) >= self.max_keys:
                    self._forget_first()
                heapq.heappush(self._by_time, (full_at, key))
            self._full_at[key] = full_at
            return 0.0

    def _forget_first(self) -> None:
        """Forgets the bucket that is full first, or, where that took a token since, puts it where it belongs."""
        noted, key = self._by_time[0]
        if (full_at := self._full_at[key]) > noted:
            heapq.heapreplace(self._by_time, (full_at, key))
        else:
            heapq.heappop(self._by_time)
            del self._full_at[key]


class BaseThrottle:
    """How often something may be done. A subclass answers `wait`; its one instance serves all frames at once.

    Raises `ImproperlyConfigured` for a subclass whose attributes are misspelt.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_misspelt(cls)
        if hasattr(cls, "allow_request") and not defined_by_user(cls, "wait"):
            raise ImproperlyConfigured(
                f"{cls.__name__}.allow_request would never be called; expected wait(scope, handler, action), which "
                "returns the seconds to wait, 0.0 where the action may be called"
            )

    def wait(self, scope: Any, handler: Any, action: str) -> float | Awaitable[float]:
        """The seconds until this action may be called; 0.0: it may now, which is counted."""
        raise NotImplementedError(f"{type(self).__name__}.wait(scope, handler, action) is missing")

    def bound(self, owner: str, throttle_scope: str | None) -> "BaseThrottle | None":
        """This throttle as it is asked for a handler, ``owner`` in errors; None: it has no say there."""
        return self

    def counts_as(self) -> Hashable:
        """What throttles have in common of which only the first is asked for a frame."""
        return self


def _check(owner: str, throttle: Any) -> None:
    """Raises `ImproperlyConfigured` for attributes of a throttle, or of its class, that cannot work."""
    rates = {f"THROTTLE_RATES[{scope!r}]": rate for scope, rate in throttle.THROTTLE_RATES.items()}
    for name, rate in {"rate": throttle.rate, **rates}.items():
        if rate is not None:
            Rate.parse(rate, owner=f"{owner}.{name}")
    if not isinstance(throttle.scope, str | None):
        raise ImproperlyConfigured(f"{owner}.scope: expected a string, got {throttle.scope!r}; name the buckets")
    if type(count := throttle.num_proxies) is not int or count < 0:
        raise ImproperlyConfigured(f"{owner}.num_proxies: expected a whole number, got {count!r}; 0 trusts none")
    if inspect.iscoroutinefunction(throttle.get_cache_key):
        what = "expected a plain function, got a coroutine function; override wait(), which may be async"
        raise ImproperlyConfigured(f"{owner}.get_cache_key: {what}")


class SimpleRateThrottle(BaseThrottle):
    """A throttle with a rate; a subclass says whose bucket a frame takes from, by `get_cache_key`.

    ``rate``, as an attribute or an argument, goes before ``THROTTLE_RATES[scope]``; None there throttles nothing.
    ``scope`` keeps the buckets of one throttle from those of another. ``store`` has the buckets: set
    ``SimpleRateThrottle.store`` once and for all. ``num_proxies``: how many proxies before this server add to
    ``X-Forwarded-For``; with 0, nobody is believed but the server (``scope["client"]``).

    Raises `ImproperlyConfigured` when declared for what cannot work, and when mounted for a rate that is missing.
    """

    rate: str | None = None
    scope: str | None = None
    THROTTLE_RATES: ClassVar[Mapping[str, str | None]] = {}
    num_proxies: ClassVar[int] = 0
    store: ClassVar[ThrottleStore] = MemoryThrottleStore()

    limit: Rate  # once it is bound, as what is put before a key
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
        """Whose bucket it is; None: not throttled. `wait` puts the throttle's own scope and rate before it."""
        raise NotImplementedError(f"{type(self).__name__}.get_cache_key(scope, handler, action) is missing")

    def get_rate(self) -> str | None:
        """The rate as it is declared; None: nothing is throttled. Asked when mounted."""
        if self.rate is not None:
            return self.rate
        if (scope := str(self.scope)) in self.THROTTLE_RATES:
            return self.THROTTLE_RATES[scope]
        near = get_close_matches(scope, self.THROTTLE_RATES, 1)
        hint = f"did you mean the scope {near[0]!r}?" if near else "as in rate = '100/min'"
        raise ImproperlyConfigured(
            f"{type(self).__name__}: expected a rate, or THROTTLE_RATES[{self.scope!r}]; got neither; {hint}"
        )

    def get_ident(self, scope: Any) -> str:
        """The client's address. Where the server tells none, as behind a Unix socket, all clients share one."""
        if self.num_proxies:
            told = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
            if addresses := [text for part in told.decode("latin-1").split(",") if (text := part.strip())]:
                return addresses[-min(self.num_proxies, len(addresses))]
        return str((scope.get("client") or ("unknown",))[0])

    def wait(self, scope: Any, handler: Any, action: str) -> float | Awaitable[float]:
        """Takes a token from the bucket of `get_cache_key`."""
        key = self.get_cache_key(scope, handler, action)
        return 0.0 if key is None else self.store.take(self._prefix + key, self.limit)

    def bound(self, owner: str, throttle_scope: str | None) -> "SimpleRateThrottle | None":
        if (rate := self.get_rate()) is None:
            return None
        throttle = copy.copy(self)
        throttle.limit = limit = Rate.parse(rate, owner=f"{owner}, {type(self).__name__}")
        throttle._prefix = f"{self.scope}:{limit.burst}/{limit.period}:"
        return throttle

    def counts_as(self) -> Hashable:
        return type(self), self._prefix


class UserRateThrottle(SimpleRateThrottle):
    """A bucket for each user, and for each address where nobody is authenticated.

    A user is told by ``WSAction(user_id=...)``, else by ``pk``, ``id``, ``identity`` or ``username``, the first that
    there is; ``TypeError`` for none.
    """

    scope: str | None = "user"

    def get_cache_key(self, scope: Any, handler: Any, action: str) -> str | None:
        who = counted_id(scope) if is_authenticated(scope.get("user")) else None
        return f"addr:{self.get_ident(scope)}" if who is None else f"user:{who}"


class AnonRateThrottle(SimpleRateThrottle):
    """A bucket for each address, of those who are not authenticated; all others are not throttled."""

    scope = "anon"

    def get_cache_key(self, scope: Any, handler: Any, action: str) -> str | None:
        return None if is_authenticated(scope.get("user")) else f"addr:{self.get_ident(scope)}"


class ScopedRateThrottle(UserRateThrottle):
    """As `UserRateThrottle`, its scope being the ``throttle_scope`` of the handler, and its rate found by that in
    ``THROTTLE_RATES``. Handlers without a ``throttle_scope`` are not throttled.

    >>> class Scoped(ScopedRateThrottle):
    ...     THROTTLE_RATES = {"uploads": "20/day", "search": "10/5s"}
    """

    scope: str | None = None

    def bound(self, owner: str, throttle_scope: str | None) -> SimpleRateThrottle | None:
        throttle = copy.copy(self)
        throttle.scope = throttle_scope if self.scope is None else self.scope
        if throttle.scope is None:
            return None
        _check(owner, throttle)
        return super(ScopedRateThrottle, throttle).bound(owner, None)


class ConnectionRateThrottle(SimpleRateThrottle):
    """A bucket for each connection: it is kept with the connection, never in ``store``, and gone when that ends.

    A subclass may answer several keys, for a bucket for each route, say; 64 of them are kept.
    """

    scope = "connection"
    clock: ClassVar[Callable[[], float]] = time.monotonic

    def get_cache_key(self, scope: Any, handler: Any, action: str) -> str | None:
        return ""

    def wait(self, scope: Any, handler: Any, action: str) -> float:
        if (key := self.get_cache_key(scope, handler, action)) is None:
            return 0.0
        kept = vars(handler.consumer)
        if (store := kept.get("_throttle_store")) is None:
            store = kept["_throttle_store"] = MemoryThrottleStore(64, clock=type(self).clock)
        return store.take(self._prefix + key, self.limit)  # type: ignore[no-any-return]  # a MemoryThrottleStore


Throttles: TypeAlias = tuple[BaseThrottle, ...]


def compile_throttles(classes: Any, *, owner: str, throttle_scope: str | None = None) -> Throttles:
    """Reads ``throttle_classes`` once: classes or instances, each bound to its rate; those without a say left out.

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
    """Raises `ImproperlyConfigured` for a throttle without the method that is asked, or with one that cannot be."""
    asked = ["wait"]
    if isinstance(throttle, SimpleRateThrottle) and not defined_by_user(type(throttle), "wait"):
        asked.append("get_cache_key")
    for name in asked:
        method = getattr(throttle, name)
        expected = f"{type(throttle).__name__} to define {name}(scope, handler, action)"
        if method.__func__ in (BaseThrottle.wait, SimpleRateThrottle.get_cache_key):
            raise ImproperlyConfigured(f"{owner}: expected {expected}, got none")
        try:
            inspect.signature(method).bind(None, None, None)
        except TypeError as exc:
            raise ImproperlyConfigured(f"{owner}: expected {expected}, got {method!r}: {exc}") from exc


async def check_throttles(throttles: Throttles, scope: Any, handler: Any, action: Any) -> None:
    """Raises `Throttled` where one of them, asked in order, says to wait. Suspends only where a store does."""
    for throttle in throttles:
        wait = throttle.wait(scope, handler, action)
        if not isinstance(wait, float | int):
            wait = await wait
        if isinstance(wait, bool):  # of which False would let everyone through, who was meant to be refused
            raise TypeError(f"{type(throttle).__name__}.wait returned {wait}; return the seconds to wait, or 0.0")
        if wait > 0:
            raise Throttled(wait=wait)
