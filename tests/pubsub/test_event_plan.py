"""`wsaction._events.plan`: what may be published, and as what."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from wsaction._events.plan import EventTypes, history
from wsaction.exceptions import ImproperlyConfigured
from wsaction.layers.base import History


class Move(BaseModel):
    x: int
    note: str = ""


DECLARED = EventTypes("Board.events", {"moved": Move, "counted": int})


@pytest.mark.parametrize(
    ("event", "data", "wanted"),
    [
        ("moved", {"x": 1}, '{"x":1,"note":""}'),
        ("moved", Move(x=2), '{"x":2,"note":""}'),
        ("moved", SimpleNamespace(x=3, note="é\n"), '{"x":3,"note":"é\\n"}'),
        ("counted", 7, "7"),
    ],
)
def test_what_is_declared_is_validated_and_written_by_its_type(event: str, data: Any, wanted: str) -> None:
    assert DECLARED.encode(event, data) == wanted


def test_what_is_not_declared_is_refused_with_what_is_near() -> None:
    with pytest.raises(ValueError, match=r"Board\.events declares no event 'move'; did you mean 'moved'\?"):
        DECLARED.encode("move", {})
    with pytest.raises(ValueError, match=r"no event 'zzz'; there are moved, counted"):
        DECLARED.encode("zzz", {})
    with pytest.raises(ValidationError, match=r"^1 validation error for Board\.events\['moved'\]\nx\n"):
        DECLARED.encode("moved", {"x": "one"})
    with pytest.raises(ValidationError, match=r"^1 validation error for Board\.events\['counted'\]\n"):
        DECLARED.encode("counted", None)


def test_what_a_model_hides_stays_hidden() -> None:
    class Secret(BaseModel):
        model_config = ConfigDict(hide_input_in_errors=True)
        pin: int

    with pytest.raises(ValidationError, match=r"Board\.events\['told'\]") as caught:
        EventTypes("Board.events", {"told": Secret}).encode("told", {"pin": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_where_nothing_is_declared_anything_may_be_said_but_the_protocols_own() -> None:
    free = EventTypes("Board.events", {})
    assert free.encode("any", {"at": math.nan}) == '{"at":null}'
    assert free.encode("any", None) == "null"
    for name in ("$resync", "", 7):
        with pytest.raises(ValueError, match=r"Board\.events: an event's name is a string"):
            free.encode(name, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        free.encode("any", object())


@pytest.mark.parametrize("events", [("moved",), None, {"$moved": int}, {"": int}, {7: int}, {"moved": object()}])
def test_what_cannot_be_declared_is_refused(events: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"Board\.events"):
        EventTypes("Board.events", events)


def test_a_history_is_kept_unless_one_of_its_bounds_is_zero() -> None:
    def kept(**attributes: Any) -> History | None:
        return history(SimpleNamespace(**attributes))

    assert kept(history_size=5, history_ttl=60) == History(5, 60)
    assert kept(history_size=5, history_ttl=60) is kept(history_size=5, history_ttl=60)
    assert kept(history_size=0, history_ttl=60) is kept(history_size=5, history_ttl=0) is kept() is None
    with pytest.raises(ImproperlyConfigured):
        kept(history_size=-1, history_ttl=60)
