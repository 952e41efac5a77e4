"""`wsaction.exceptions`: the catalogue of errors, validation errors, and what a reply says about a bug."""

import json
import logging
import time
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from wsaction import exceptions
from wsaction._protocol.frames import new_frame
from wsaction.exceptions import (
    CATALOGUE,
    ActionNotAllowed,
    ActionTimeout,
    APIError,
    Busy,
    Cancelled,
    Conflict,
    DatabaseUnavailable,
    DuplicateRequestID,
    ImproperlyConfigured,
    InvalidFrame,
    InvalidJSON,
    InvalidParameters,
    LayerUnavailable,
    NotAuthenticated,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    ReplyTooLarge,
    RouteNotFound,
    ServerError,
    ShuttingDown,
    Throttled,
    one_line,
    to_api_error,
    validation_items,
)
from wsaction.routing import converters
from wsaction.serializers._errors import encode_error

TREE = [
    (InvalidJSON, 400, "invalid_json"),
    (InvalidFrame, 400, "invalid_frame"),
    (NotAuthenticated, 401, "not_authenticated"),
    (PermissionDenied, 403, "permission_denied"),
    (RouteNotFound, 404, "route_not_found"),
    (NotFound, 404, "not_found"),
    (ActionNotAllowed, 405, "action_not_allowed"),
    (ActionTimeout, 408, "action_timeout"),
    (Conflict, 409, "conflict"),
    (DuplicateRequestID, 409, "duplicate_request_id"),
    (Throttled, 429, "throttled"),
    (Cancelled, 499, "cancelled"),
    (ServerError, 500, "server_error"),
    (ReplyTooLarge, 500, "reply_too_large"),
    (OutcomeUnknown, 500, "outcome_unknown"),
    (Busy, 503, "busy"),
    (ShuttingDown, 503, "shutting_down"),
    (LayerUnavailable, 503, "layer_unavailable"),
    (DatabaseUnavailable, 503, "database_unavailable"),
]


def items_of(error: APIError) -> list[dict[str, Any]]:
    """The ``errors`` of the reply for this error, as a client reads them."""
    reply = json.loads(encode_error(new_frame({}, "a", "", None), error))
    assert (reply["data"], reply["status"]) == (None, error.status)
    items: list[dict[str, Any]] = reply["errors"]
    return items


# ------------------------------------------------------------------------------------------------- tree and catalogue
@pytest.mark.parametrize(("kind", "status", "type"), TREE, ids=[type for *_, type in TREE])
def test_each_catalogued_error_has_its_status_and_type(kind: Any, status: int, type: str) -> None:
    error = kind()
    assert isinstance(error, APIError)
    assert (error.status, error.type) == (status, type)
    assert error.errors == [{"type": type, "msg": error.msg}]
    assert error.msg.endswith(".")
    assert str(error) == error.msg


def test_the_catalogue_holds_every_error_by_type() -> None:
    assert {type: kind for kind, _, type in TREE} == CATALOGUE


def test_the_docstring_lists_every_error() -> None:
    assert exceptions.__doc__ is not None
    rows = [line.split()[1:] for line in exceptions.__doc__.splitlines() if "──" in line]
    assert [line for line in rows if line[1] != "InvalidParameters"] == [
        [str(status), kind.__name__, type] for kind, status, type in TREE
    ]


def test_layer_unavailable_may_be_uncertain() -> None:
    assert [LayerUnavailable().uncertain, LayerUnavailable("m", {"a": 1}, uncertain=True).uncertain] == [False, True]


def test_improperly_configured_is_not_an_api_error() -> None:
    assert ImproperlyConfigured is converters.ImproperlyConfigured
    assert not issubclass(ImproperlyConfigured, APIError)


# ------------------------------------------------------------------------------------------------- error items
@pytest.mark.parametrize(
    ("error", "item"),
    [
        (NotFound("No card 7."), {"type": "not_found", "msg": "No card 7."}),
        (Busy(ctx={"limit": "x"}), {"type": "busy", "msg": Busy.code[2], "ctx": {"limit": "x"}}),
        (InvalidFrame("m", loc=("route",)), {"type": "invalid_frame", "msg": "m", "loc": ["route"]}),
        (
            APIError(402, "payment_required", "Pay.", {"plan": "free"}, loc=["data", 3]),
            {"type": "payment_required", "msg": "Pay.", "loc": ["data", 3], "ctx": {"plan": "free"}},
        ),
        (APIError(409, "stale", "m", {}), {"type": "stale", "msg": "m"}),
    ],
)
def test_an_error_item_has_its_keys_in_a_fixed_order(error: APIError, item: dict[str, Any]) -> None:
    assert list(error.errors[0].items()) == list(item.items())
    assert items_of(error) == [item]


@pytest.mark.parametrize("status", [400, 404, 418, 599])
def test_an_error_status_is_accepted(status: int) -> None:
    assert APIError(status, "t", "m").status == status


@pytest.mark.parametrize("status", [-1, 0, 200, 204, 399, 600])
def test_other_statuses_are_refused_with_the_cure(status: int) -> None:
    with pytest.raises(ValueError, match=rf"400 to 599, not {status}; return"):
        APIError(status, "t", "m")


class Colour(Enum):
    RED = "red"


class Opaque:
    def __str__(self) -> str:
        return "opaque"


class Unwritable:
    def __str__(self) -> str:
        raise RuntimeError("no str")


def circle() -> dict[str, Any]:
    ctx: dict[str, Any] = {}
    ctx["self"] = ctx
    return ctx


@pytest.mark.parametrize(
    ("ctx", "expected"),
    [
        ({"n": float("nan"), "i": float("-inf")}, {"n": None, "i": None}),
        ({"e": Colour.RED, "s": {1}, "o": Opaque()}, {"e": "red", "s": [1], "o": "opaque"}),
        ({1: 2}, {"1": 2}),
        (circle(), None),
        ({"x": b"\xff"}, None),
        ({"x": "\ud800"}, None),
        ({"x": Unwritable()}, None),
    ],
)
def test_a_ctx_that_is_not_json_is_converted_or_left_out(ctx: Any, expected: Any) -> None:
    item = {"type": "t", "msg": "m"} if expected is None else {"type": "t", "msg": "m", "ctx": expected}
    assert items_of(APIError(400, "t", "m", ctx)) == [item]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ctx": [1]}, "ctx is a mapping"),
        ({"ctx": 7}, "ctx is a mapping"),
        ({"loc": "data"}, "loc is a sequence of keys"),
        ({"loc": 7}, "loc is a sequence of keys"),
    ],
)
def test_an_invalid_ctx_or_loc_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        APIError(400, "t", "m", **arguments)
    with pytest.raises(TypeError, match=message):
        NotFound("m", **arguments)


def test_a_status_must_be_an_int() -> None:
    for status in (404.5, "404", True, None):
        with pytest.raises(ValueError, match="400 to 599"):
            APIError(status, "t", "m")  # type: ignore[arg-type]


def test_a_msg_that_is_not_valid_text_is_converted() -> None:
    assert items_of(APIError(400, "t", "caf\u00e9 \ud800")) == [{"type": "t", "msg": "caf\u00e9 ?"}]
    assert items_of(APIError(400, "t", Opaque())) == [{"type": "t", "msg": "opaque"}]  # type: ignore[arg-type]
    assert items_of(NotFound({"pk": 7})) == [{"type": "not_found", "msg": "{'pk': 7}"}]  # type: ignore[arg-type]


def test_a_subclass_sets_its_code() -> None:
    class TicketClosed(Conflict):
        code = 409, "ticket_closed", "This ticket is closed."

    assert items_of(TicketClosed()) == [{"type": "ticket_closed", "msg": "This ticket is closed."}]
    assert TicketClosed("Since May.", {"since": 5}).status == 409
    for attribute in ({"status": 409}, {"type": "ticket_closed"}, {"msg": "No."}):
        with pytest.raises(ImproperlyConfigured, match=r"Closed\.\w+ would not count; .*write code = 409"):
            type("Closed", (NotFound,), attribute)


# ------------------------------------------------------------------------------------------------- validation
def validation_error(annotation: Any, value: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(annotation).validate_python(value)
    return caught.value


def test_validation_items_leave_out_the_input() -> None:
    class Card(BaseModel):
        title: str = Field(max_length=3)
        tags: list[int]

    items = validation_items(validation_error(Card, {"title": "secret", "tags": [1, "x"]}), "data")
    assert items == [
        {
            "type": "string_too_long",
            "msg": "String should have at most 3 characters",
            "loc": ["data", "title"],
            "ctx": {"max_length": 3},
        },
        {
            "type": "int_parsing",
            "msg": "Input should be a valid integer, unable to parse string as an integer",
            "loc": ["data", "tags", 1],
        },
    ]
    error = InvalidParameters(items)
    assert (error.status, error.type, error.msg) == (400, "string_too_long", items[0]["msg"])
    assert items_of(error) == items


def test_only_the_first_hundred_errors_are_listed() -> None:
    items = validation_items(validation_error(list[int], ["x"] * 250), "data")
    assert [item["loc"] for item in items[:-1]] == [["data", n] for n in range(100)]
    assert items[-1] == {"type": "too_many_errors", "msg": "150 more errors are not listed.", "loc": ["data"]}
    assert len(validation_items(validation_error(list[int], ["x"] * 100))) == 100


def test_thousands_of_errors_are_only_counted() -> None:
    """pydantic lists all errors or none. To list those of a 64 KiB frame would block the other connections."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(list[str]).validate_python([1] * 32_000)
    took, listing = [], []
    for _ in range(5):
        started = time.thread_time()
        items = validation_items(caught.value, "data")
        took.append(time.thread_time() - started)
        started = time.thread_time()
        caught.value.errors()
        listing.append(time.thread_time() - started)
    assert items == [{"type": "too_many_errors", "msg": "32000 errors, which are not listed.", "loc": ["data"]}]
    assert min(took) < min(listing) / 5
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(list[str]).validate_python([1] * 1_000)
    assert len(validation_items(caught.value)) == 101


def test_an_exception_in_a_pydantic_ctx_becomes_text() -> None:
    def even(value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value

    (item,) = validation_items(validation_error(Annotated[int, AfterValidator(even)], 3), "n")
    assert item["ctx"] == {"error": "must be even"}
    assert items_of(InvalidParameters([item])) == [item]


def test_the_ctx_of_a_custom_pydantic_error_is_converted() -> None:
    def custom(value: Any) -> Any:
        raise PydanticCustomError("odd", "odd {what}", {"what": Opaque(), "more": {1}})

    items = validation_items(validation_error(Annotated[Any, AfterValidator(custom)], 3), "n")
    assert items_of(InvalidParameters(items)) == [
        {"type": "odd", "msg": "odd opaque", "loc": ["n"], "ctx": {"what": "opaque", "more": [1]}}
    ]


def test_the_ctx_of_a_literal_lists_the_expected_values() -> None:
    assert validation_items(validation_error(Literal["a", "b"], "c"))[0]["ctx"] == {"expected": "'a' or 'b'"}


# ------------------------------------------------------------------------------------------------- bugs
def test_an_api_error_is_returned_unlogged(caplog: pytest.LogCaptureFixture) -> None:
    error = NotFound()
    assert to_api_error(error, what="x", debug=True) is error
    assert not caplog.records


def failing(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:
        return caught


def test_a_bug_is_logged_with_the_error_id_of_the_reply(caplog: pytest.LogCaptureFixture) -> None:
    exc = failing(ZeroDivisionError("hidden"))
    with caplog.at_level(logging.ERROR, "wsaction"):
        error = to_api_error(exc, what="update boards/7/", debug=False)
    (item,) = items_of(error)
    assert item == {"type": "server_error", "msg": ServerError.code[2], "ctx": {"error_id": item["ctx"]["error_id"]}}
    (record,) = caplog.records
    assert record.name == "wsaction"
    assert record.exc_info is not None
    assert record.exc_info[1] is exc
    assert record.getMessage() == f"update boards/7/ failed (error_id {item['ctx']['error_id']})"
    assert to_api_error(exc, what="x", debug=False).ctx != error.ctx


def test_debug_adds_the_exception_and_a_bounded_traceback() -> None:
    (item,) = items_of(to_api_error(failing(ZeroDivisionError("shown")), what="x", debug=True))
    assert item["ctx"]["exception"] == "ZeroDivisionError('shown')"
    assert item["ctx"]["traceback"].startswith("Traceback (most recent call last):\n")
    assert item["ctx"]["traceback"].endswith("ZeroDivisionError: shown\n")
    (item,) = items_of(to_api_error(ValueError("x" * 100_000), what="x", debug=True))
    assert len(item["ctx"]["exception"]) == len(item["ctx"]["traceback"]) == 16_384


class NoRepr(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class SurrogateRepr(Exception):
    def __repr__(self) -> str:
        return "\udcff"

    __str__ = __repr__


def test_debug_survives_an_exception_with_a_failing_repr() -> None:
    (item,) = items_of(to_api_error(NoRepr(), what="x", debug=True))
    assert item["ctx"]["exception"] == "NoRepr, whose repr() failed"
    assert item["ctx"]["error_id"]
    assert item["ctx"]["traceback"]
    (item,) = items_of(to_api_error(SurrogateRepr(), what="x", debug=True))
    assert item["ctx"]["exception"] == r"\udcff"
    assert item["ctx"]["error_id"]
    assert r"\udcff" in item["ctx"]["traceback"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("update boards/7/", "update boards/7/"),
        ("update käse/", "update käse/"),
        ("update a\nERROR forged", r"'update a\nERROR forged'"),
        ("update a\u2028b\x1b[2J", r"'update a\u2028b\x1b[2J'"),
        ("x" * 1_000, "x" * 300),
    ],
)
def test_client_text_is_one_line_in_the_log(text: str, line: str, caplog: pytest.LogCaptureFixture) -> None:
    assert one_line(text) == line
    to_api_error(ZeroDivisionError(), what=text, debug=False)
    assert caplog.records[0].getMessage().startswith(f"{line} failed")
