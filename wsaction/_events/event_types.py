"""The events that a handler declares, with the types of their data: checks an event and encodes it."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from wsaction._handlers.parameters import built
from wsaction._utils.hints import did_you_mean
from wsaction.exceptions import ImproperlyConfigured
from wsaction.serializers._models import json_encoder, python_validator


class EventTypes:
    """The declared events of a handler by name. If none is declared, any name and any data is accepted.

    ``owner`` names them in errors, as in ``"BoardHandler.events"``. Raises `ImproperlyConfigured` unless ``events``
    maps names to types. ``EventTypes("H.events", {"moved": int}).encode("moved", 7)`` is ``"7"``.
    """

    def __init__(self, owner: str, events: Any) -> None:
        if not isinstance(events, Mapping):
            raise ImproperlyConfigured(
                f"{owner}: expected a mapping of names to types, as in {{'moved': Move}}, got {events!r}"
            )
        self.owner = owner
        self.types = dict(events)
        self._codecs: dict[str, tuple[Callable[[Any], Any], Callable[[Any], str]]] = {}
        for name, kind in self.types.items():
            _check_name(owner, name, ImproperlyConfigured)
            label = f"the event {name!r}"
            validator = partial(python_validator, title=f"{owner}[{name!r}]")
            self._codecs[name] = built(owner, label, validator, kind), built(owner, label, json_encoder, kind)

    def encode(self, event: str, data: Any) -> str:
        """Validates the data of an event by its declared type, and returns it as JSON.

        Raises ``ValueError`` if the event is not declared, ``pydantic.ValidationError`` if the data does not fit its
        type, and ``TypeError`` if the data cannot be written as JSON.
        """
        if (codec := self._codecs.get(event)) is not None:
            validate, encode = codec
            return encode(validate(data))
        _check_name(self.owner, event, ValueError)
        if self._codecs:
            hint = did_you_mean(event, self._codecs, "there are")
            raise ValueError(f"{self.owner} declares no event {event!r}; {hint}")
        return _encode_any()(data)


def _check_name(owner: str, name: Any, error: type[Exception]) -> None:
    if not isinstance(name, str) or not name or name.startswith("$"):
        raise error(
            f"{owner}: an event's name is a string that is not empty and does not begin with '$', which is reserved "
            f"for the protocol; got {name!r}"
        )


@lru_cache(1)
def _encode_any() -> Callable[[Any], str]:
    return json_encoder(Any)
