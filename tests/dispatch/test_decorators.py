"""`wsaction.decorators`: the options of `async_action`, and what it leaves of the method."""

import inspect
from functools import partial
from http import HTTPStatus
from typing import Any

import pytest

from tests.support.driving import ask
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured
from wsaction.handlers import AsyncAPIActionHandler


async def test_with_and_without_parentheses_sync_and_async() -> None:
    class Consumer(AsyncAPIConsumer):
        @async_action
        async def bare(self) -> str:
            return "bare"

        @async_action()
        async def called(self) -> str:
            return "called"

        @async_action
        def sync(self) -> str:
            return "sync"

        @async_action(name="renamed", status=201)
        def under_another_name(self) -> str:
            return "renamed"

    view = Consumer.as_asgi()
    for action in ("bare", "called", "sync", "renamed"):
        reply = await ask(view, action)
        assert reply == {
            "errors": [], "data": action, "action": action, "route": "", "status": 201 if action == "renamed" else 200,
        }  # fmt: skip
    assert (await ask(view, "under_another_name"))["status"] == 405


async def test_the_method_stays_an_ordinary_method() -> None:
    class Handler(AsyncAPIActionHandler):
        @async_action(status=201)
        async def double(self, n: int) -> int:
            """Twice as much.

            And more.
            """
            return 2 * n

        @async_action
        def half(self, n: int) -> int:
            return n // 2

        @async_action(summary="Given instead.")
        async def summarized(self) -> None:
            """Not this docstring."""

    assert await Handler().double(4) == 8
    assert Handler().half(8) == 4
    assert inspect.iscoroutinefunction(Handler.double)
    assert {name: action.options.summary for name, action in Handler.available_actions.items()} == {
        "double": "Twice as much.",
        "half": None,
        "summarized": "Given instead.",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"nane": "x"},
            r"@async_action has no option nane; it has name, mode, timeout, ordered, permission_classes, ",
        ),
        ({"deadline": 5, "retries": 1}, "has no option deadline, retries"),
        ({"mode": "shout"}, "mode=.* is 'response', 'broadcast' or 'none', not 'shout'"),
        ({"mode": None}, "not None"),
        ({"status": 199}, r"status=199\): a final status is an int of 200 to 599, without 206"),
        ({"status": 600}, "status=600"),
        ({"status": 206}, "status=206"),
        ({"status": True}, "status=True"),
        ({"status": "200"}, "status='200'"),
        ({"status": None}, "status=None"),
        ({"destructive": "yes"}, "destructive=.*expected True, False, or None to decide by the name, got 'yes'"),
        ({"detail": "yes"}, "detail=.* is True for an action of one object, False for one of the list, not 'yes'"),
    ],
    ids=str,
)
def test_an_invalid_option_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        async_action(**options)


@pytest.mark.parametrize("status", [200, 204, 404, 599, HTTPStatus.CREATED])
async def test_the_status_option_sets_the_reply_status(status: int) -> None:
    class Consumer(AsyncAPIConsumer):
        @async_action(status=status)
        async def act(self) -> None: ...

    assert (await ask(Consumer.as_asgi(), "act"))["status"] == status


def test_positional_options_and_non_methods_are_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"by name, as in @async_action\(name='list'\)"):
        async_action("list")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        async_action(None, "list")  # type: ignore[call-overload]
    with pytest.raises(ImproperlyConfigured, match="leave out @staticmethod"):
        async_action(staticmethod(lambda: 1))
    with pytest.raises(ImproperlyConfigured, match="leave out @classmethod"):
        async_action(classmethod(lambda cls: cls))  # type: ignore[call-overload]


def marked(function: Any) -> Any:
    return async_action(function)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (staticmethod(marked(lambda self: 1)), "staticmethod"),
        (classmethod(marked(lambda self: 1)), "classmethod"),
        (marked(partial(lambda self: 1)), "partial"),
        (marked(type("Inner", (), {})), "type"),
    ],
)
def test_an_action_must_be_a_function_of_its_class(value: Any, kind: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"Handler\.act: expected a method, def or async def, got {kind}"):
        type("Handler", (AsyncAPIActionHandler,), {"act": value})
