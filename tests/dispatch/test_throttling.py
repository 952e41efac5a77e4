"""`wsaction.throttling`: rates, token buckets compared with a model, cache keys, and frames end to end."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.authentication import BaseUser, SimpleUser, UnauthenticatedUser

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import CATALOGUE, ImproperlyConfigured, Throttled
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.permissions import IsAuthenticated
from wsaction.routing import path
from wsaction.testing import WebSocketSession, connect
from wsaction.throttling import (
    AnonRateThrottle,
    BaseThrottle,
    ConnectionRateThrottle,
    MemoryThrottleStore,
    Rate,
    ScopedRateThrottle,
    SimpleRateThrottle,
    ThrottleStore,
    UserRateThrottle,
    check_throttles,
    compile_throttles,
)

OWNER = "CardHandler.throttle_classes"


class Clock:
    """A clock that the test moves by hand."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The clock of all buckets of a test. Each test has its own store."""
    clock = Clock()
    monkeypatch.setattr(SimpleRateThrottle, "store", MemoryThrottleStore(clock=clock))
    monkeypatch.setattr(ConnectionRateThrottle, "clock", clock)
    return clock


def user(**attributes: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"is_authenticated": True, **attributes})


def asgi_scope(user: Any = None, client: Any = ("1.2.3.4", 5678), *forwarded: str) -> dict[str, Any]:
    headers = [(b"host", b"example.com"), *((b"x-forwarded-for", value.encode()) for value in forwarded)]
    return {"user": user, "client": client, "headers": headers}


def compiled(*classes: Any, **options: Any) -> tuple[Any, ...]:
    return compile_throttles(classes, owner=OWNER, **options)


# -- rates and buckets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "burst", "period"),
    [
        *(("7/" + unit, 7, 1) for unit in ("s", "sec", "second")),
        *(("7/" + unit, 7, 60) for unit in ("m", "min", "minute")),
        *(("7/" + unit, 7, 3_600) for unit in ("h", "hour")),
        *(("7/" + unit, 7, 86_400) for unit in ("d", "day")),
        ("10/5s", 10, 5),
        ("1/30day", 1, 2_592_000),
        (" 100 / 2 min ", 100, 120),
    ],
)
def test_a_rate_is_parsed(text: str, burst: int, period: float) -> None:
    assert Rate.parse(text) == Rate(burst, period)


@pytest.mark.parametrize(
    "text",
    ["", "100", "100/", "/min", "0/min", "10/0s", "-1/s", "1.5/s", "10/month", "10/S", "١/s", "10/s\n\nx",
     "9999999999/s", 10, None, b"1/s", ("1/s",)],
)  # fmt: skip
def test_an_invalid_rate_is_refused_with_an_example(text: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"H.rate: expected a rate such as '100/min' or '10/5s'") as caught:
        Rate.parse(text, owner="H.rate")
    assert repr(text) in str(caught.value)


def test_a_bucket_gives_a_burst_then_one_token_per_interval() -> None:
    clock = Clock()
    store, rate = MemoryThrottleStore(clock=clock), Rate.parse("10/5s")
    assert [store.take("k", rate) for _ in range(10)] == [0.0] * 10
    for _ in range(3):
        wait = store.take("k", rate)
        assert wait == pytest.approx(0.5)
        assert store.take("k", rate) == wait  # a refusal takes no token
        clock.now += 0.2
        assert store.take("k", rate) == pytest.approx(0.3)
        clock.now += 0.3
        assert store.take("k", rate) == 0.0
    clock.now += 1_000
    assert [store.take("k", rate) for _ in range(10)] == [0.0] * 10  # tokens never exceed the burst
    assert store.take("k", rate) > 0
    assert store.take("other", rate) == 0.0


class Bucket:
    """The model of a token bucket: it refills with time, and a call takes a token if there is one."""

    def __init__(self, rate: Rate, now: Fraction) -> None:
        self.rate, self.tokens, self.seen = rate, Fraction(rate.burst), now
        self.each_second = Fraction(rate.burst) / Fraction(rate.period)

    def take(self, now: Fraction) -> Fraction:
        self.tokens = min(Fraction(self.rate.burst), self.tokens + (now - self.seen) * self.each_second)
        self.seen = now
        if self.tokens >= 1:
            self.tokens -= 1
            return Fraction(0)
        return (1 - self.tokens) / self.each_second


RATES = [Rate.parse(text) for text in ("1/s", "3/s", "10/5s", "100/min", "7/min", "1/day", "1000/h")]
STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20_000)), min_size=1, max_size=80)


@given(rate=st.sampled_from(RATES), steps=STEPS, unit=st.sampled_from([1, 64, 1_024]))
def test_buckets_match_the_model(rate: Rate, steps: list[tuple[str, int]], unit: int) -> None:
    clock = Clock()
    store = MemoryThrottleStore(clock=clock)
    model: dict[str, Bucket] = {}
    for key, pause in steps:
        clock.now += pause / unit / 16  # exact in binary, so that store and model see the same time
        now = Fraction(clock.now)
        bucket = model.setdefault(key, Bucket(rate, now))
        expected = bucket.take(now)
        wait = store.take(key, rate)
        if 0 < expected < 2e-6:  # within the tolerance, the token may count as available
            assert wait < 2e-6
            return
        assert wait == pytest.approx(float(expected), abs=1e-6)
        assert (wait > 0) == (expected > 0)


@given(rate=st.sampled_from(RATES), pauses=st.lists(st.floats(0, 50), max_size=60))
def test_retry_after_is_exact(rate: Rate, pauses: list[float]) -> None:
    clock = Clock(123_456_789.123)
    store = MemoryThrottleStore(clock=clock)
    for pause in pauses:
        clock.now += pause
        while (wait := store.take("k", rate)) == 0.0:
            pass
        retry_after = Throttled(wait=wait).errors[0]["ctx"]["retry_after"]
        if retry_after > 1e-3:
            clock.now += retry_after - 1e-3
            assert store.take("k", rate) == pytest.approx(1e-3, abs=1e-5)
            clock.now += 1e-3
        else:
            clock.now += retry_after
        assert store.take("k", rate) == 0.0


# -- eviction ---------------------------------------------------------------------------------------------------------


def test_full_buckets_are_dropped_as_others_are_added() -> None:
    clock = Clock()
    store, rate = MemoryThrottleStore(clock=clock), Rate.parse("10/s")
    for number in range(1_000):
        store.take(f"old {number}", rate)
    assert len(store) == 1_000
    clock.now += 1
    for number in range(400):
        store.take(f"new {number}", rate)
    assert len(store) == 400


def test_an_empty_bucket_survives_many_new_keys() -> None:
    clock = Clock()
    store, rate = MemoryThrottleStore(100, clock=clock), Rate.parse("5/min")
    while store.take("greedy", rate) == 0.0:
        pass
    for number in range(10_000):
        assert store.take(f"address {number}", rate) == 0.0
        assert len(store) <= 100
        assert store.take("greedy", rate) == pytest.approx(12)


@given(
    steps=st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0.0, 0.25, 1.0, 8.0])), max_size=120),
    max_keys=st.integers(1, 6),
)
def test_full_buckets_are_evicted_before_restricting_ones(steps: list[tuple[int, float]], max_keys: int) -> None:
    clock = Clock()
    store, rate = MemoryThrottleStore(max_keys, clock=clock), Rate(2, 4)
    full_at: dict[str, float] = {}  # the buckets that the store must keep
    for number, pause in steps:
        clock.now += pause
        key = str(number)
        full_at = {one: at for one, at in full_at.items() if at > clock.now}  # full buckets may be dropped
        after = full_at.get(key, clock.now) + 2
        refused = after - clock.now > 4
        assert (store.take(key, rate) > 0) == refused
        if not refused:
            if key not in full_at and len(full_at) >= max_keys:
                del full_at[min(full_at, key=lambda one: (full_at[one], one))]
            full_at[key] = after
        assert len(store) <= max_keys
        assert full_at.keys() <= store._full_at.keys()


@pytest.mark.parametrize("max_keys", [0, -1, 1.5, True, None, "10"])
def test_max_keys_must_be_a_positive_whole_number(max_keys: Any) -> None:
    with pytest.raises(ValueError, match=r"max_keys=...\) is a whole number above 0"):
        MemoryThrottleStore(max_keys)


def test_threads_may_share_a_store() -> None:
    store, rate = MemoryThrottleStore(3, clock=Clock()), Rate.parse("1000/day")
    start = threading.Barrier(4)

    def take(number: int) -> int:
        start.wait(5)
        for other in range(500):
            store.take(f"other {number} {other}", rate)  # evicts other keys
        return sum(store.take("k", rate) == 0.0 for _ in range(400))

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(take, range(4))) == 1_000


# -- cache keys -------------------------------------------------------------------------------------------------------


class Nameless(BaseUser):
    """A Starlette user without an ``identity``."""

    is_authenticated = True
    username = "x"


@pytest.mark.parametrize(
    ("scope", "by_user", "by_address"),
    [
        (asgi_scope(user(pk=7, id=8)), "user:7", None),
        (asgi_scope(user(id=8, identity="x")), "user:8", None),
        (asgi_scope(user(pk=None, identity="ann")), "user:ann", None),
        (asgi_scope(user(pk=0)), "user:0", None),
        (asgi_scope(SimpleUser("ann")), "user:ann", None),
        (asgi_scope(Nameless()), "user:x", None),
        (asgi_scope(UnauthenticatedUser()), "addr:1.2.3.4", "addr:1.2.3.4"),
        (asgi_scope(user(pk=7, is_authenticated=False)), "addr:1.2.3.4", "addr:1.2.3.4"),
        (asgi_scope(None, ["::1", 1]), "addr:::1", "addr:::1"),
        (asgi_scope(None, None), "addr:unknown", "addr:unknown"),
        (
            asgi_scope(None, ("1.2.3.4", 1), "6.6.6.6"),
            "addr:1.2.3.4",
            "addr:1.2.3.4",
        ),  # without num_proxies the header is ignored
        ({}, "addr:unknown", "addr:unknown"),
    ],
)
def test_cache_keys_identify_users_or_addresses(scope: dict[str, Any], by_user: str, by_address: str | None) -> None:
    assert UserRateThrottle("1/s").get_cache_key(scope, None, "list") == by_user
    assert AnonRateThrottle("1/s").get_cache_key(scope, None, "list") == by_address
    assert ScopedRateThrottle("1/s").get_cache_key(scope, None, "list") == by_user


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (1, [], "1.2.3.4"),
        (1, [" , "], "1.2.3.4"),
        (1, ["9.9.9.9"], "9.9.9.9"),
        (1, ["6.6.6.6, 9.9.9.9"], "9.9.9.9"),
        (2, ["6.6.6.6, 9.9.9.9, 10.0.0.1"], "9.9.9.9"),
        (2, ["6.6.6.6", "9.9.9.9", " 10.0.0.1 "], "9.9.9.9"),
        (3, ["9.9.9.9, 10.0.0.1"], "9.9.9.9"),
    ],
)
def test_trusted_proxies_decide_the_address(proxies: int, forwarded: list[str], address: str) -> None:
    class Behind(AnonRateThrottle):
        num_proxies = proxies

    assert Behind("1/s").get_ident(asgi_scope(None, ("1.2.3.4", 1), *forwarded)) == address


def test_a_user_without_an_identity_raises() -> None:
    with pytest.raises(TypeError, match="a user with pk, id, identity or username, got SimpleNamespace"):
        UserRateThrottle("1/s").get_cache_key(asgi_scope(user()), None, "list")


async def test_user_id_of_the_app_identifies_users() -> None:
    class Root(AsyncAPIConsumer):
        throttle_classes = (UserRateThrottle("1/day"),)

        @async_action
        async def act(self) -> None: ...

    app = WSAction([path("", Root.as_asgi())], user_id=lambda user: user.email)

    async def acts(name: str | None) -> int:
        async with connect(app, user=user(email=name)) as ws:
            return int((await ws.call("act"))["status"])

    assert [await acts(name) for name in ("ann", "ann", "bob")] == [200, 429, 200]
    assert [await acts(None) for _ in range(2)] == [200, 429], "if user_id returns None, the address is used"


def test_addresses_users_scopes_and_rates_have_separate_buckets(clock: Clock) -> None:
    class Other(UserRateThrottle):
        scope = "other"

    (a, b, c) = compiled(UserRateThrottle("1/s"), UserRateThrottle("2/s"), Other("1/s"))
    (same,) = compiled(UserRateThrottle("1/s"))
    named, unnamed = asgi_scope(user(pk="1.2.3.4")), asgi_scope()
    assert [throttle.wait(scope, None, "x") for throttle in (a, b, c) for scope in (named, unnamed)] == [0.0] * 6
    assert same.wait(named, None, "x") == pytest.approx(1.0)
    clock.now += 1
    assert same.wait(named, None, "x") == 0.0


# -- declarations -----------------------------------------------------------------------------------------------------


def test_rates_by_scope() -> None:
    class Rated(UserRateThrottle):
        THROTTLE_RATES = {"user": "5/min", "uploads": "20/day", "off": None}

    class Scoped(ScopedRateThrottle):
        THROTTLE_RATES = Rated.THROTTLE_RATES

    def limits(*classes: Any, **options: Any) -> list[tuple[str, Rate]]:
        return [(one.scope, one.limit) for one in compiled(*classes, **options)]

    assert limits(Rated) == [("user", Rate(5, 60))]
    assert limits(Rated("1/s"), Rated(scope="uploads")) == [("user", Rate(1, 1)), ("uploads", Rate(20, 86_400))]
    assert limits(Rated(scope="off")) == []
    assert limits(Scoped, throttle_scope="uploads") == [("uploads", Rate(20, 86_400))]
    assert limits(Scoped(scope="user"), throttle_scope="uploads") == [("user", Rate(5, 60))]
    assert limits(Scoped) == []
    assert limits(Scoped, throttle_scope="off") == []
    shared = Scoped()
    assert limits(shared, throttle_scope="user") + limits(shared, throttle_scope="uploads") == [
        ("user", Rate(5, 60)),
        ("uploads", Rate(20, 86_400)),
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"rate": "100/month"}, r"Bad.rate: expected a rate such as"),
        ({"rate": 100}, r"Bad.rate: .*got 100"),
        ({"THROTTLE_RATES": {"user": "often"}}, r"Bad.THROTTLE_RATES\['user'\]: expected a rate"),
        ({"scope": 7}, r"Bad.scope: expected a string, got 7"),
        ({"num_proxies": -1}, r"Bad.num_proxies: expected a whole number, got -1"),
        ({"num_proxies": None}, r"Bad.num_proxies: expected a whole number, got None"),
    ],
)
def test_an_invalid_throttle_class_is_refused_when_declared(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        type("Bad", (UserRateThrottle,), body)


def test_an_async_get_cache_key_is_refused_when_declared() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"Bad.get_cache_key: expected a plain function.*override wait"):

        class Bad(SimpleRateThrottle):
            async def get_cache_key(self, scope: Any, handler: Any, action: str) -> str | None:  # type: ignore[override]
                return None


def test_invalid_arguments_are_refused_at_once() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"UserRateThrottle.rate: expected a rate"):
        UserRateThrottle("often")
    with pytest.raises(ImproperlyConfigured, match=r"UserRateThrottle.scope: expected a string"):
        UserRateThrottle("1/s", scope=7)  # type: ignore[arg-type]


class Rated(ScopedRateThrottle):
    THROTTLE_RATES = {"uploads": "20/day"}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"throttle_classes": UserRateThrottle}, r"H.throttle_classes: expected a tuple or list.*forget the comma"),
        (
            {"throttle_classes": ("1/s",)},
            r"H.throttle_classes: expected a throttle class.*UserRateThrottle\('100/min'\)",
        ),
        ({"throttle_classes": (IsAuthenticated,)}, r"H.throttle_classes: .*derive it from BaseThrottle"),
        ({"throttle_classes": (UserRateThrottle,)}, r"UserRateThrottle: expected a rate.* or THROTTLE_RATES\['user'\]"),
        ({"throttle_classes": (Rated,), "throttle_scope": "upload"}, r"did you mean 'uploads'\?"),
        ({"throttle_classes": (Rated,), "throttle_scope": 7}, r"H.throttle_classes.scope: expected a string, got 7"),
    ],
)
def test_invalid_handler_throttles_are_refused_when_mounted(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        mounted(type("H", (AsyncAPIActionHandler,), attributes).as_aaah())
    with pytest.raises(ImproperlyConfigured, match=message):
        mounted(type("H", (AsyncAPIActionHandler,), {}).as_aaah(**attributes))


def test_invalid_action_throttles_are_refused_when_mounted() -> None:
    class H(AsyncAPIActionHandler):
        @async_action(throttle_classes=UserRateThrottle)  # type: ignore[call-overload]
        async def act(self) -> None: ...

    with pytest.raises(ImproperlyConfigured, match=r"@async_action\(throttle_classes=...\) of H.act: expected a tuple"):
        mounted(H.as_aaah())


def mounted(view: Any, **attributes: Any) -> Any:
    return type("Root", (AsyncAPIConsumer,), {"routepatterns": [path("x", view)], **attributes}).as_asgi()


def test_abstract_throttles_say_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match=r"BaseThrottle.wait\(scope, handler, action\) is missing"):
        BaseThrottle().wait({}, None, "x")
    with pytest.raises(NotImplementedError, match=r"SimpleRateThrottle.get_cache_key"):
        SimpleRateThrottle("1/s").get_cache_key({}, None, "x")


def test_the_catalogue_has_throttled() -> None:
    assert CATALOGUE["throttled"] is Throttled
    assert Throttled().errors == [{"type": "throttled", "msg": "Too many requests; try again later."}]
    assert Throttled("Slow down.", {"plan": "free"}, wait=1.5).errors == [
        {"type": "throttled", "msg": "Slow down.", "ctx": {"plan": "free", "retry_after": 1.5}}
    ]


# -- frames -----------------------------------------------------------------------------------------------------------


def echoing(**attributes: Any) -> type[AsyncAPIConsumer]:
    """A consumer with an action ``echo`` and these attributes."""

    async def echo(self: Any, text: str) -> str:
        return text

    return type("Echoing", (AsyncAPIConsumer,), {"echo": async_action(echo), **attributes})


async def statuses(ws: WebSocketSession, *actions: str, route: str = "", **rest: Any) -> list[int]:
    """The statuses of the replies to frames sent one after the other."""
    return [(await ask(ws, action, route, **rest))["status"] for action in actions]


async def ask(ws: WebSocketSession, action: str, route: str = "", **rest: Any) -> dict[str, Any]:
    await ws.send_json({"action": action, "route": route, **rest})
    reply: dict[str, Any] = await ws.receive_json()
    return reply


ANN, BOB = user(pk="ann"), user(pk="bob")


async def test_a_refusal_is_a_429_with_retry_after(clock: Clock) -> None:
    app = echoing(throttle_classes=(UserRateThrottle("3/min"),)).as_asgi()
    async with connect(app, user=ANN) as ann, connect(app, user=ANN) as again, connect(app, user=BOB) as bob:
        assert await statuses(ann, "echo", "echo", text="hi") == [200, 200]
        assert await statuses(again, "echo", "echo", text="hi") == [200, 429]  # one bucket for both connections
        clock.now += 7.5
        reply = await ask(ann, "echo", text="hi", request_id=7)
        assert reply == {
            "errors": [
                {
                    "type": "throttled",
                    "msg": "Too many requests; try again in 12.5 s.",
                    "ctx": {"retry_after": 12.5},
                }
            ],
            "data": None,
            "action": "echo",
            "route": "",
            "status": 429,
            "request_id": 7,
        }
        assert await statuses(bob, "echo", "echo", "echo", "echo", text="hi") == [200, 200, 200, 429]
        clock.now += 12.5
        assert await statuses(ann, "echo", "echo", text="hi") == [200, 429]


async def test_invalid_frames_and_unknown_routes_are_counted() -> None:
    app = echoing(throttle_classes=(UserRateThrottle("3/min"),)).as_asgi()
    async with connect(app) as ws:
        assert await statuses(ws, "echo", text=[]) == [400]
        assert await statuses(ws, "nothing") == [405]
        assert await statuses(ws, "echo", route="nowhere") == [404]
        assert await statuses(ws, "echo", text=[]) == [429]  # before its parameters are validated
        assert await statuses(ws, "nothing") == [429]
        assert await statuses(ws, "echo", route="nowhere") == [429]


async def test_frames_without_permission_take_no_tokens() -> None:
    throttles = (AnonRateThrottle("1/min"), ConnectionRateThrottle("1/min"))
    app = echoing(throttle_classes=throttles, permission_classes=(IsAuthenticated,)).as_asgi()
    visitor = user(pk=1, is_authenticated=False)
    async with connect(app, user=visitor) as ws:
        assert await statuses(ws, "echo", "echo", "echo", text="hi") == [403, 403, 403]
        visitor.is_authenticated = True
        assert await statuses(ws, "echo", "echo", text="hi") == [200, 429]


async def test_anon_rate_throttle_counts_anonymous_users_by_address() -> None:
    app = echoing(throttle_classes=(AnonRateThrottle("1/min"),)).as_asgi()
    async with connect(app, client=("1.1.1.1", 1)) as one, connect(app, client=("1.1.1.1", 2)) as same:
        assert await statuses(one, "echo", text="hi") + await statuses(same, "echo", text="hi") == [200, 429]
    async with connect(app, client=("2.2.2.2", 1)) as other, connect(app, client=("1.1.1.1", 3), user=ANN) as ann:
        assert await statuses(other, "echo", text="hi") == [200]
        assert await statuses(ann, "echo", "echo", "echo", text="hi") == [200, 200, 200]


async def test_an_action_has_throttles_of_its_own() -> None:
    class Chat(AsyncAPIConsumer):
        throttle_classes = (UserRateThrottle("2/min"),)

        @async_action
        async def say(self) -> None: ...

        @async_action(throttle_classes=(UserRateThrottle("1/min", scope="invite"),))
        async def invite(self) -> None: ...

        @async_action(throttle_classes=())
        def free(self) -> None: ...

    async with connect(Chat.as_asgi(), user=ANN) as ws:
        assert await statuses(ws, "invite", "invite", "say", "say", "say") == [200, 429, 200, 200, 429]
        assert await statuses(ws, "free", "free", "free", "free") == [200] * 4


async def test_a_connection_has_a_bucket_that_ends_with_it(clock: Clock) -> None:
    class ByRoute(ConnectionRateThrottle):
        def get_cache_key(self, scope: Any, handler: Any, action: str) -> str | None:
            return None if action == "free" else str(handler.route)

    class Child(AsyncAPIActionHandler):
        @async_action
        async def act(self) -> None: ...

        @async_action
        async def free(self) -> None: ...

    root = echoing(
        throttle_classes=(ConnectionRateThrottle("2/s"),),
        routepatterns=[path("a/<int:pk>", Child.as_aaah(throttle_classes=(ByRoute("1/min"),)))],
    )
    app = root.as_asgi()
    async with connect(app, user=ANN) as one, connect(app, user=ANN) as other:
        assert await statuses(one, "echo", "echo", "echo", text="hi") == [200, 200, 429]
        assert await statuses(other, "echo", "echo", "echo", text="hi") == [200, 200, 429]
        clock.now += 1
        assert await statuses(one, "act", route="a/1") + await statuses(one, "act", route="a/2") == [200, 200]
        clock.now += 1
        assert await statuses(one, "act", route="a/1") + await statuses(one, "free", route="a/1") == [429, 200]
    assert len(SimpleRateThrottle.store) == 0  # type: ignore[arg-type]  # a MemoryThrottleStore
    async with connect(app, user=ANN) as fresh:
        assert await statuses(fresh, "echo", "echo", text="hi") == [200, 200]


async def test_an_outer_token_is_spent_even_if_an_inner_throttle_refuses(clock: Clock) -> None:
    class Child(AsyncAPIActionHandler):
        throttle_classes = (ConnectionRateThrottle("1/s", scope="child"),)

        @async_action
        async def act(self) -> None: ...

    root = echoing(
        throttle_classes=(ConnectionRateThrottle("2/min", scope="root"),),
        routepatterns=[path("child", Child.as_aaah()), path("free", Child.as_aaah(throttle_classes=()))],
    )
    async with connect(root.as_asgi()) as ws:
        assert await statuses(ws, "act", route="child") == [200]
        assert (await ask(ws, "act", "child"))["errors"][0]["ctx"] == {"retry_after": 1.0}  # refused by the child
        clock.now += 1
        assert (await ask(ws, "act", "child"))["errors"][0]["ctx"] == {"retry_after": 29.0}  # refused by the root
        assert await statuses(ws, "act", route="free") == [429]
        clock.now += 29
        assert await statuses(ws, "act", route="child") == [200]  # the root's refusal took no token of the child


async def test_a_throttle_on_several_handlers_counts_a_frame_once() -> None:
    class Child(AsyncAPIActionHandler):
        throttle_classes = (UserRateThrottle("2/min"), UserRateThrottle("2/min"))

        @async_action
        async def act(self) -> None: ...

    root = echoing(
        throttle_classes=(UserRateThrottle("2/min"),),
        routepatterns=[path("child", Child.as_aaah())],
    )
    async with connect(root.as_asgi()) as ws:
        assert await statuses(ws, "act", "act", "act", route="child") == [200, 200, 429]


async def test_scoped_throttles_find_their_rate_by_the_handler(clock: Clock) -> None:
    class Scoped(ScopedRateThrottle):
        THROTTLE_RATES = {"uploads": "1/min", "search": "2/5s"}

    class Base(AsyncAPIActionHandler):
        throttle_classes = (Scoped,)

        @async_action
        async def act(self) -> None: ...

    class Uploads(Base):
        throttle_scope = "uploads"

    patterns = [
        path("free", Base.as_aaah()),
        path("uploads", Uploads.as_aaah()),
        path("search", Base.as_aaah(throttle_scope="search")),
    ]
    async with connect(echoing(routepatterns=patterns).as_asgi(), user=ANN) as ws:
        assert await statuses(ws, "act", "act", "act", route="free") == [200, 200, 200]
        assert await statuses(ws, "act", "act", route="uploads") == [200, 429]
        assert await statuses(ws, "act", "act", "act", route="search") == [200, 200, 429]
        clock.now += 2.5
        assert await statuses(ws, "act", "act", route="search") == [200, 429]


async def test_get_throttles_decides_for_each_frame() -> None:
    class Deciding(AsyncAPIActionHandler):
        def get_throttles(self) -> Any:
            return super().get_throttles() if self.action == "own" else (UserRateThrottle(f"{self.kwargs['n']}/min"),)

        @async_action
        async def act(self) -> None: ...

        @async_action(throttle_classes=(UserRateThrottle("1/min", scope="own"),))
        async def own(self) -> None: ...

    class Plain(Deciding):
        throttle_classes = (UserRateThrottle("1/min", scope="plain"),)

        def get_throttles(self) -> Any:
            return AsyncAPIActionHandler.get_throttles(self)

    class Sleepy(AsyncAPIActionHandler):
        async def check_throttles(self) -> None:
            raise Throttled("Not now.")

        routepatterns = [path("below", Plain.as_aaah())]

    patterns = [path("n/<int:n>", Deciding.as_aaah()), path("plain", Plain.as_aaah()), path("z/", Sleepy.as_aaah())]
    async with connect(echoing(routepatterns=patterns).as_asgi(), user=ANN) as ws:
        assert await statuses(ws, "act", "act", route="n/1") == [200, 429]
        assert await statuses(ws, "act", "act", "act", route="n/2") == [200, 200, 429]
        assert await statuses(ws, "own", "own", route="n/1") == [200, 429]
        assert await statuses(ws, "act", "act", "nothing", route="plain") == [200, 429, 429]
        assert (await ask(ws, "act", "z/below"))["errors"] == [{"type": "throttled", "msg": "Not now."}]


async def test_get_throttles_above_returns_its_own_throttles() -> None:
    class Child(AsyncAPIActionHandler):
        @async_action(throttle_classes=())
        async def act(self) -> None: ...

    class Above(AsyncAPIActionHandler):
        throttle_classes = (UserRateThrottle("1/min"),)
        routepatterns = [path("below", Child.as_aaah())]

        def get_throttles(self) -> Any:
            return super().get_throttles()

    async with connect(echoing(routepatterns=[path("above/", Above.as_aaah())]).as_asgi()) as ws:
        assert await statuses(ws, "act", "act", route="above/below") == [200, 429]


async def test_a_handler_served_alone_is_throttled() -> None:
    class Alone(AsyncAPIActionHandler):
        @async_action
        async def act(self) -> None: ...

    view = Alone.as_aaah(throttle_classes=(ConnectionRateThrottle("1/min"),))
    async with connect(view) as ws:
        assert await statuses(ws, "act", "act") == [200, 429]


async def test_an_async_store_is_awaited() -> None:
    asked: list[tuple[str, Rate]] = []

    class Shared:
        async def take(self, key: str, rate: Rate) -> float:
            await asyncio.sleep(0)
            asked.append((key, rate))
            return 0.0 if len(asked) < 2 else 2.5

    shared: ThrottleStore = Shared()

    class ByUser(UserRateThrottle):
        store = shared

    async with connect(echoing(throttle_classes=(ByUser("10/min"),)).as_asgi(), user=ANN) as ws:
        assert await statuses(ws, "echo", text="hi") == [200]
        assert (await ask(ws, "echo", text="hi"))["errors"][0]["ctx"] == {"retry_after": 2.5}
    assert asked == [("user:10/60:user:ann", Rate(10, 60))] * 2


async def test_any_throttle_that_returns_a_wait_works() -> None:
    class Maintenance(BaseThrottle):
        answers: Any = iter([0, 0.0, 3, math.inf])

        def wait(self, scope: Any, handler: Any, action: str) -> float:
            return next(self.answers)  # type: ignore[no-any-return]

    class Later(BaseThrottle):
        async def wait(self, scope: Any, handler: Any, action: str) -> float:
            return 0.5

    throttles = compiled(Maintenance(), Maintenance)
    await check_throttles(throttles, {}, None, "x")
    with pytest.raises(Throttled, match="try again in 3 s"):
        await check_throttles(throttles, {}, None, "x")
    async with connect(echoing(throttle_classes=(Maintenance,)).as_asgi()) as ws:
        assert (await ask(ws, "echo"))["errors"][0]["ctx"] == {"retry_after": None}
    with pytest.raises(Throttled, match=r"try again in 0.5 s"):
        await check_throttles(compiled(Later), {}, None, "x")


def test_the_memory_store_never_suspends() -> None:
    coroutine = check_throttles(compiled(UserRateThrottle("1/s")), asgi_scope(), None, "x")
    with pytest.raises(StopIteration):
        coroutine.send(None)
