"""The events that a handler declares, each with the type of its data."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from wsaction._handlers.parameters import built
from wsaction._utils.hints import did_you_mean
from wsaction.exceptions import ImproperlyConfigured
from wsaction.layers.base import History
from wsaction.serializers._models import json_encoder, python_validator

if TYPE_CHECKING:
    from wsaction.handlers import AsyncAPIActionHandler

__all__ = ("EventTypes", "event_types_of", "history")


class EventTypes:
    """Declared events by name; where none is declared, every name and all data is welcome.

    ``owner`` names them in errors (``"BoardHandler.events"``). Raises `ImproperlyConfigured` for what is no mapping of
    names to types. ``EventTypes("H.events", {"moved": int}).encode("moved", 7)`` is ``"7"``.
    """

    def __init__(self, owner: str, events: Any) -> None:
        if not isinstance(events, Mapping):
            raise ImproperlyConfigured(
                f"{owner} is a mapping of names to types, as in {{'moved': Move}}, not {events!r}"
            )
        self.owner, self.types = owner, dict(events)
        self._ways: dict[str, tuple[Callable[[Any], Any], Callable[[Any], str]]] = {}
        for name, kind in self.types.items():
            _check_name(owner, name, ImproperlyConfigured)
            what = f"the event {name!r}"
            validator = partial(python_validator, title=f"{owner}[{name!r}]")
            self._ways[name] = built(owner, what, validator, kind), built(owner, what, json_encoder, kind)

    def encode(self, event: str, data: Any) -> str:
        """The data of an event as JSON, validated by what was declared for it.

        Raises ``ValueError`` for an event that is not declared, ``pydantic.ValidationError`` for data that is not what
        was, ``TypeError`` for what cannot be written.
        """
        if (ways := self._ways.get(event)) is not None:
            validate, write = ways
            return write(validate(data))
        _check_name(self.owner, event, ValueError)
        if self._ways:
            hint = did_you_mean(event, self._ways, "there are")
            raise ValueError(f"{self.owner} declares no event {event!r}; {hint}")
        return _write_anything()(data)


def event_types_of(handler: "AsyncAPIActionHandler") -> EventTypes:
    """The events of a handler, ready to be encoded; any, where it has no `SubscribeMixin`."""
    cls: Any = type(handler)
    if (known := getattr(cls, "_event_types", None)) is None:
        return EventTypes(f"{cls.__name__}.events", {})
    events: Any = handler.events  # type: ignore[attr-defined]  # as it was mounted with, perhaps
    return known if events is cls.events else EventTypes(f"{cls.__name__}.events", events)


def _check_name(owner: str, name: Any, error: type[Exception]) -> None:
    if not isinstance(name, str) or not name or name.startswith("$"):
        raise error(
            f"{owner}: an event's name is a string that is not empty and does not begin with '$' (the protocol's own), "
            f"not {name!r}"
        )


@lru_cache(1)
def _write_anything() -> Callable[[Any], str]:
    return json_encoder(Any)


@lru_cache(256)
def _history(size: Any, ttl: Any, always: bool) -> History:
    return History(size, ttl, always)


def history(owner: Any) -> History | None:
    """The history that a handler keeps by its ``history_size``, ``history_ttl`` and ``history_always``; None where size
    or ttl is 0.

    Raises `ImproperlyConfigured` for what cannot be kept.
    """
    size, ttl = getattr(owner, "history_size", 0), getattr(owner, "history_ttl", 0)
    return _history(size, ttl, bool(getattr(owner, "history_always", False))) if size != 0 and ttl != 0 else None
