"""`wsaction._events.plan`: what may be published, and as what."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from wsaction._events.event_types import EventTypes
from wsaction._events.plan import history
from wsaction.exceptions import ImproperlyConfigured
from wsaction.layers.base import History


class Move(BaseModel):
    x: int
    note: str = ""


DECLARED = EventTypes("Board.events", {"moved": Move, "counted": int})


@pytest.mark.parametrize(
    ("event", "data", "expected"),
    [
        ("moved", {"x": 1}, '{"x":1,"note":""}'),
        ("moved", Move(x=2), '{"x":2,"note":""}'),
        ("moved", SimpleNamespace(x=3, note="é\n"), '{"x":3,"note":"é\\n"}'),
        ("counted", 7, "7"),
    ],
)
def test_declared_events_are_validated_and_encoded_by_type(event: str, data: Any, expected: str) -> None:
    assert DECLARED.encode(event, data) == expected


def test_undeclared_events_are_refused_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"Board\.events declares no event 'move'; did you mean 'moved'\?"):
        DECLARED.encode("move", {})
    with pytest.raises(ValueError, match=r"no event 'zzz'; there are moved, counted"):
        DECLARED.encode("zzz", {})
    with pytest.raises(ValidationError, match=r"^1 validation error for Board\.events\['moved'\]\nx\n"):
        DECLARED.encode("moved", {"x": "one"})
    with pytest.raises(ValidationError, match=r"^1 validation error for Board\.events\['counted'\]\n"):
        DECLARED.encode("counted", None)


def test_input_hidden_by_a_model_stays_out_of_errors() -> None:
    class Secret(BaseModel):
        model_config = ConfigDict(hide_input_in_errors=True)
        pin: int

    with pytest.raises(ValidationError, match=r"Board\.events\['told'\]") as caught:
        EventTypes("Board.events", {"told": Secret}).encode("told", {"pin": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_without_declarations_only_reserved_names_are_refused() -> None:
    free = EventTypes("Board.events", {})
    assert free.encode("any", {"at": math.nan}) == '{"at":null}'
    assert free.encode("any", None) == "null"
    for name in ("$resync", "", 7):
        with pytest.raises(ValueError, match=r"Board\.events: an event's name is a string"):
            free.encode(name, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        free.encode("any", object())


@pytest.mark.parametrize("events", [("moved",), None, {"$moved": int}, {"": int}, {7: int}, {"moved": object()}])
def test_invalid_declarations_are_refused(events: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"Board\.events"):
        EventTypes("Board.events", events)


def test_a_history_is_kept_unless_one_of_its_bounds_is_zero() -> None:
    def history_of(**attributes: Any) -> History | None:
        return history(SimpleNamespace(**attributes))

    assert history_of(history_size=5, history_ttl=60) == History(5, 60)
    assert history_of(history_size=5, history_ttl=60) is history_of(history_size=5, history_ttl=60)
    assert (
        history_of(history_size=0, history_ttl=60) is history_of(history_size=5, history_ttl=0) is history_of() is None
    )
    with pytest.raises(ImproperlyConfigured):
        history_of(history_size=-1, history_ttl=60)
