"""`wsaction.serializers`: input is validated as pydantic does, and output has the declared type."""

import dataclasses
import datetime as dt
import enum
import json
import math
import re
import types
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyAddress,
    Json,
    PlainSerializer,
    SecretStr,
    Strict,
    StrictInt,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema
from typing_extensions import TypedDict

from wsaction.exceptions import ImproperlyConfigured
from wsaction.serializers._models import json_encoder, json_validator


def shown(value: Any) -> str:
    """A test id that is the same in every process, because pytest-xdist's workers must collect the same tests."""
    return re.sub(r" at 0x[0-9a-f]+", "", ascii(value))[:60]


T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    TWO = 2


class Level(enum.IntEnum):
    LOW = 1


class Strictly(BaseModel):
    model_config = ConfigDict(strict=True)

    id: uuid.UUID
    at: dt.datetime
    price: Decimal
    colour: Colour
    pair: tuple[int, str]
    tags: set[str]
    raw: bytes = b""


class Outer(BaseModel):
    inner: Strictly | None = None
    n: int = 0


class StrictField(BaseModel):
    when: dt.date = Field(strict=True)


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclasses.dataclass
class Box:
    items: list[int]
    at: dt.date | None = None


class Typed(TypedDict, total=False):
    n: int
    id: uuid.UUID


class Tree(BaseModel):
    at: dt.time | None = None
    children: "list[Tree]" = []


class Page(BaseModel, Generic[T]):
    rows: list[T]


class Aliased(BaseModel):
    card_id: int = Field(alias="cardId")


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]
    n: int


class ByMode:
    """A type that is an array in JSON and a tuple in Python."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.json_or_python_schema(
            json_schema=core_schema.list_schema(core_schema.int_schema()),
            python_schema=core_schema.tuple_schema([core_schema.int_schema()], variadic_item_index=0, strict=True),
        )


def mode_of(value: Any, info: ValidationInfo) -> Any:
    return info.mode


class Moded(BaseModel):
    how: Any = None

    @field_validator("how")
    @classmethod
    def tell(cls, value: Any, info: ValidationInfo) -> Any:
        return info.mode


class ModedModel(BaseModel):
    n: int = 0

    @model_validator(mode="before")
    @classmethod
    def tell(cls, data: Any, info: ValidationInfo) -> Any:
        assert info.mode == "json"
        return data


# ------------------------------------------------------------------------------------------------- validators
STRICT = {
    "id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "at": "2026-11-23T10:00:00Z",
    "price": "1.50",
    "colour": "red",
    "pair": [1, "a"],
    "tags": ["a", "a"],
    "raw": "é",
}


def test_a_strict_model_accepts_the_json_form_of_values() -> None:
    value = json_validator(Strictly)(STRICT)
    assert value == Strictly(
        id=uuid.UUID(STRICT["id"]),  # type: ignore[arg-type]
        at=dt.datetime(2026, 11, 23, 10, tzinfo=dt.UTC),
        price=Decimal("1.50"),
        colour=Colour.RED,
        pair=(1, "a"),
        tags={"a"},
        raw="é".encode(),
    )
    assert json_validator(Outer)({"inner": STRICT}).inner == value
    assert json_validator(list[Outer | None])([{"inner": STRICT}, None])[0].inner == value
    assert json_validator(dict[str, Page[Strictly]])({"p": {"rows": [STRICT]}})["p"].rows == [value]


@pytest.mark.parametrize(
    ("key", "value", "type"),
    [("pair", ["1", "a"], "int_type"), ("price", True, "decimal_type"), ("tags", "a", "set_type")],
)
def test_a_strict_model_refuses_other_types(key: str, value: Any, type: str) -> None:
    with pytest.raises(ValidationError) as caught:
        json_validator(Strictly)({**STRICT, key: value})
    assert caught.value.errors()[0]["type"] == type


@pytest.mark.parametrize(
    ("annotation", "value", "wanted"),
    [
        (Annotated[dt.date, Strict()], "2026-11-23", dt.date(2026, 11, 23)),
        (StrictField, {"when": "2026-11-23"}, StrictField(when=dt.date(2026, 11, 23))),
        (ByMode, [1, 2], [1, 2]),
        (list[ByMode], [[1]], [[1]]),
        (Annotated[Any, AfterValidator(mode_of)], 1, "json"),
        (Annotated[Any, BeforeValidator(mode_of)], 1, "json"),
        (dict[str, Annotated[Any, AfterValidator(mode_of)]], {"a": 1}, {"a": "json"}),
        (Moded, {"how": 1}, Moded.model_construct(how="json")),
        (ModedModel, {}, ModedModel.model_construct()),
        (bytes, "é", "é".encode()),
        (uuid.UUID | str, STRICT["id"], uuid.UUID(str(STRICT["id"]))),
        (str | dt.date, "2026-11-23", "2026-11-23"),
        (Decimal | None, "1.5", Decimal("1.5")),
        (int | str, "5", "5"),
    ],
    ids=shown,
)
def test_types_that_differ_for_json_are_validated_as_json(annotation: Any, value: Any, wanted: Any) -> None:
    got = json_validator(annotation)(value)
    assert got == wanted == TypeAdapter(annotation).validate_json(json.dumps(value))
    assert type(got) is type(wanted)


def test_other_types_get_the_parsed_value_itself() -> None:
    value = {"a": [1]}
    assert json_validator(Annotated[Any, AfterValidator(lambda value: value)])(value) is value


def test_an_overflowed_number_stays_infinite() -> None:
    assert json_validator(Annotated[float, Strict()])(math.inf) == math.inf


TYPES: list[Any] = [
    Any, int, StrictInt, float, Annotated[float, Strict()], bool, str, None, Decimal, Annotated[Decimal, Field(gt=1)],
    dt.date, dt.datetime, dt.time, dt.timedelta, uuid.UUID, Colour, Level, Path, IPvAnyAddress, SecretStr, Json[int],
    Literal[1, "a", True], Literal["a", None], bytes, list[int], tuple[int, str], tuple[int, ...], set[int],
    frozenset[str], Sequence[int], dict[str, int], dict[int, str], dict[Colour, Any], int | str, str | bytes, Typed,
    int | None, uuid.UUID | dt.date | str, float | int | bool, list[int] | set[str], Point, Box, Strictly, Outer,
    StrictField, Tree, Page[Decimal], Aliased, ByMode, Moded, Annotated[Cat | Dog, Field(discriminator="kind")],
    Cat | Dog, Annotated[int, Field(gt=1), WrapValidator(lambda value, inner: inner(value))],
    Annotated[list[int], BeforeValidator(lambda value: value if isinstance(value, list) else [value])], re.Pattern[str],
]  # fmt: skip
VALIDATORS: dict[int, tuple[Callable[[Any], Any], Callable[[str], Any]]] = {
    number: (json_validator(annotation), TypeAdapter(annotation).validate_json)
    for number, annotation in enumerate(TYPES)
}
WORDS = st.sampled_from(
    ["", "a", "5", "-1.5", "1.0", "true", "nan", "Infinity", "red", "cat", "2026-11-23", "2026-11-23T10:00:00Z",
     "10:00", "P1D", "7c9e6679-7425-40de-944b-e07fc1f90ae7", "127.0.0.1", "[a-z]", "(", "é", " 5 ", "0x5", "1_000"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["n", "id", "x", "y", "kind", "items", "at", "rows", "inner", "when", "how", "cardId", "children"]
)
NUMBERS = st.integers() | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False) | st.just(2.0)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | WORDS, inner, max_size=3),
    max_leaves=6,
)


def verdict(validate: Callable[[Any], Any], value: Any) -> Any:
    """The value and its type, or the type, place and message of each error."""
    try:
        return shown(validate(value))
    except ValidationError as exc:
        return [(line["type"], line["loc"], line["msg"]) for line in exc.errors(include_url=False)]


def shown(value: Any) -> Any:
    text = re.sub(r"Decimal\('([^']+)'\)", lambda found: str(Decimal(found[1]).normalize()), repr(value))
    return type(value), text  # decimals as numbers: "2" and "2.0" are the same verdict


@settings(max_examples=150)
@given(VALUES)
def test_validation_agrees_with_pydantic_on_json_text(value: Any) -> None:
    text = json.dumps(value)
    for number, (validate, validate_json) in VALIDATORS.items():
        assert verdict(validate, json.loads(text)) == verdict(validate_json, text), TYPES[number]


# ------------------------------------------------------------------------------------------------- encoders
class Card(BaseModel):
    id: int
    title: str = "t"


class SecretCard(Card):
    secret: str = "s"


@dataclasses.dataclass
class Row:
    id: Any
    title: Any = "row"
    hidden: str = "h"


ROWS = [Row(1), Card(id=2), {"id": 3, "title": "d", "hidden": 1}, SecretCard(id=4)]
ROWS_TOLD = '[{"id":1,"title":"row"},{"id":2,"title":"t"},{"id":3,"title":"d"},{"id":4,"title":"t"}]'


@pytest.mark.parametrize(
    ("annotation", "value", "wanted"),
    [
        # values of the declared type
        (Card, Card(id=1), '{"id":1,"title":"t"}'),
        (list[Card], [Card(id=1)], '[{"id":1,"title":"t"}]'),
        (Card | None, None, "null"),
        (type(None), None, "null"),
        (Decimal, Decimal("1.50"), '"1.50"'),
        (dt.datetime, dt.datetime(2026, 11, 23, tzinfo=dt.UTC), '"2026-11-23T00:00:00Z"'),
        (str, "é\n", '"é\\n"'),
        (dict, {"é": [1, {"a": None}]}, '{"é":[1,{"a":null}]}'),
        (tuple[int, str], (1, "a"), '[1,"a"]'),
        (Colour, Colour.RED, '"red"'),
        (Box, Box([1], dt.date(2026, 1, 2)), '{"items":[1],"at":"2026-01-02"}'),
        (Page[Decimal], Page[Decimal](rows=[Decimal(1)]), '{"rows":["1"]}'),
        (Aliased, Aliased(cardId=5), '{"card_id":5}'),
        (Annotated[int, PlainSerializer(lambda value: f"#{value}")], 5, '"#5"'),
        (float, math.nan, "null"),
        (list[float], [math.inf, -math.inf, 1.5], "[null,null,1.5]"),
        # values of other types, which become it
        (Card, Row(1), '{"id":1,"title":"row"}'),
        (Card, {"id": 1, "hidden": 2}, '{"id":1,"title":"t"}'),
        (Card, types.SimpleNamespace(id="7", title="ns"), '{"id":7,"title":"ns"}'),
        (Card, SecretCard(id=1), '{"id":1,"title":"t"}'),
        (list[Card], ROWS, ROWS_TOLD),
        (list[Card], tuple(ROWS), ROWS_TOLD),
        (dict[str, Card], {"a": Row(1)}, '{"a":{"id":1,"title":"row"}}'),
        (Card | None, Row(1), '{"id":1,"title":"row"}'),
        (Decimal, "1.50", '"1.50"'),
        (int, "5", "5"),
        (uuid.UUID, STRICT["id"], f'"{STRICT["id"]}"'),
        (Box, {"items": ["1"]}, '{"items":[1],"at":null}'),
        # no declared type
        (Any, None, "null"),
        (Any, Card(id=1), '{"id":1,"title":"t"}'),
        (Any, SecretCard(id=1), '{"id":1,"title":"t","secret":"s"}'),
        (Any, [Row(1)], '[{"id":1,"title":"row","hidden":"h"}]'),
        (Any, {"d": Decimal("1.5"), "u": uuid.UUID(int=0), "t": (1,), "s": {1}, "e": Colour.TWO, "b": b"ab"},
         '{"d":"1.5","u":"00000000-0000-0000-0000-000000000000","t":[1],"s":[1],"e":2,"b":"ab"}'),
        (Any, {"at": dt.date(2026, 1, 2), "for": dt.timedelta(days=1), "path": Path("a/b")},
         '{"at":"2026-01-02","for":"P1D","path":"a/b"}'),
        (Any, {"n": math.nan, "i": [math.inf, {"x": -math.inf}]}, '{"n":null,"i":[null,{"x":null}]}'),
        (Any, {1: "b", None: "c"}, '{"1":"b","None":"c"}'),
        (Any, (n for n in range(3)), "[0,1,2]"),
        (Any, 10**30, "1" + "0" * 30),
        (Any, "\u2028 \U0001f600 </script>", '"\u2028 \U0001f600 </script>"'),
    ],
    ids=shown,
)  # fmt: skip
def test_a_value_is_encoded_in_its_annotated_form(annotation: Any, value: Any, wanted: str) -> None:
    assert json_encoder(annotation)(value) == wanted


def test_an_annotated_instance_is_not_validated_again() -> None:
    class Loud(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def never(cls, value: int) -> int:
            raise AssertionError("validated")

    assert json_encoder(Loud)(Loud.model_construct(n=1)) == '{"n":1}'
    assert json_encoder(list[Loud])([Loud.model_construct(n=1)]) == '[{"n":1}]'


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (Card, Row("x"), r"^Row was returned where Card is announced: .*id\n"),
        (Card, 5, r"^int was returned where Card is announced"),
        (list[Card], [{"title": "no id"}], r"^list was returned where list\[.*Card\] is announced: .*0\.id\n"),
        (int, "x", "^str was returned where int is announced"),
        (type(None), 5, "^int was returned where NoneType is announced"),
        (Any, object(), "^object cannot be written as JSON: .*; return a pydantic model, or annotate the return type"),
        (Any, {"a": [object()]}, "^dict cannot be written as JSON"),
        (Any, b"\xff", "^bytes cannot be written as JSON"),
        (Any, "\ud800", "^str cannot be written as JSON"),
        (dict, {"a": object()}, "^dict cannot be written as JSON: .*; return a pydantic model, or annotate"),
        (list, [object()], "^list cannot be written as JSON"),
        (str, "\ud800", "^str (cannot be written as JSON|was returned where str is announced)"),
        (
            Card,
            ("x", 201),
            r"^tuple .* Card is announced; where a status is returned too, annotate tuple\[Card, int\]:",
        ),
        (Card, ("x", "201"), "^tuple was returned where Card is announced; a status is an int, got '201':"),
        (Card, ("x", "y"), "^tuple was returned where Card is announced: "),
        (tuple[int, int], ("x", "201"), r"^tuple was returned where tuple\[int, int\] is announced: "),
    ],
    ids=shown,
)
def test_a_value_that_cannot_be_encoded_is_an_error(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=re.compile(message, re.DOTALL)):
        json_encoder(annotation)(value)


@pytest.mark.parametrize("annotation", [Any, int, Card, list[Card], type(None), str])
def test_a_coroutine_that_was_not_awaited_is_an_error(annotation: Any) -> None:
    async def count() -> int:
        return 1

    forgotten = count()
    with pytest.raises(TypeError, match=r"coroutine .*count\(\) was returned, .*; did you forget `await`\?$"):
        json_encoder(annotation)(forgotten)
    forgotten = count()
    with pytest.raises(TypeError, match=r"^dict cannot be written as JSON: .*; did you forget `await`\?$"):
        json_encoder(Any)({"count": forgotten})
    forgotten.close()


def test_a_model_that_would_write_nan_is_refused() -> None:
    class Constants(BaseModel):
        model_config = ConfigDict(ser_json_inf_nan="constants")

        n: float

    class Strings(BaseModel):
        model_config = ConfigDict(ser_json_inf_nan="strings")

        n: float

    for annotation in (Constants, list[Constants], Page[Constants]):
        with pytest.raises(ImproperlyConfigured, match="ser_json_inf_nan='constants', which writes NaN"):
            json_encoder(annotation)
    assert json_encoder(Strings)(Strings(n=math.nan)) == '{"n":"NaN"}'


def test_a_circular_value_is_an_error() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for annotation in (Any, list):
        with pytest.raises(TypeError, match="cannot be written as JSON"):
            json_encoder(annotation)(circle)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
        max_leaves=20,
    )
)
def test_json_is_compact_and_not_ascii(value: Any) -> None:
    text = json_encoder()(value)
    assert json.loads(text) == value
    assert json_encoder()(json.loads(text)) == text
    if isinstance(value, str | list):
        strings = [value] if isinstance(value, str) else [item for item in value if isinstance(item, str)]
        assert all(character in text for string in strings for character in string if ord(character) > 127)


class _Lazy:
    """A row that loads ``title`` at first use; until then it is not in its ``__dict__``."""

    def __init__(self) -> None:
        self.id = 1

    @property
    def title(self) -> str:
        return "loaded"


class _Shown(BaseModel):
    id: int
    title: str


@pytest.mark.parametrize(
    ("annotation", "wrap"),
    [
        (_Shown, lambda row: row),
        (list[_Shown], lambda row: [row]),
        (_Shown | None, lambda row: row),
        (dict[str, _Shown], lambda row: {"a": row}),
    ],
    ids=["model", "list", "optional", "dict"],
)
def test_lazy_attributes_are_read(annotation: Any, wrap: Any) -> None:
    assert json.loads(json_encoder(annotation)(wrap(_Lazy()))) == wrap({"id": 1, "title": "loaded"})
    whole = _Shown(id=2, title="b")
    assert json.loads(json_encoder(annotation)(wrap(whole))) == wrap({"id": 2, "title": "b"})
