"""`wsaction.serializers._core_schema`, and the input and output models that `wsaction.serializers` makes of a model."""

import dataclasses
import datetime as dt
from types import SimpleNamespace
from typing import Annotated, Any, Generic, Self, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    TypeAdapter,
    ValidationInfo,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema
from sqlmodel import Field as SQLField
from sqlmodel import SQLModel
from typing_extensions import TypedDict

from wsaction.exceptions import ImproperlyConfigured, InvalidParameters
from wsaction.serializers import InputModel, ReadOnly, WriteOnly, input_model, output_model
from wsaction.serializers._models import json_encoder, json_validator

T = TypeVar("T")


class Card(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str = Field(min_length=1)
    notes: str | None = "none yet"
    pin: Annotated[str, WriteOnly] = "0000"


FULL, PART = input_model(Card), input_model(Card, partial=True)


def errors_of(call: Any, *args: Any) -> list[tuple[str, list[Any]]]:
    """The type and place of each error."""
    with pytest.raises(InvalidParameters) as raised:
        call(*args)
    return [(item["type"], item["loc"]) for item in raised.value.errors]


def shown(model: type[BaseModel], obj: Any) -> dict[str, Any]:
    return output_model(model).model_validate(obj, from_attributes=True).model_dump(mode="json")


# ------------------------------------------------------------------------------------------------- input
@pytest.mark.parametrize(
    ("data", "values"),
    [
        ({"title": "a"}, {"title": "a", "notes": "none yet", "pin": "0000"}),
        ({"title": "a", "notes": None, "pin": "1"}, {"title": "a", "notes": None, "pin": "1"}),
        ({"title": "a", "id": "not even a number", "x": 1}, {"title": "a", "notes": "none yet", "pin": "0000"}),
    ],
)
def test_input_leaves_out_read_only_fields(data: Any, values: Any) -> None:
    assert FULL.values(data) == values


@pytest.mark.parametrize("data", [{}, {"notes": None}, {"title": "b"}, {"pin": "1", "notes": "n"}, {"id": 7, "x": 1}])
def test_partial_input_has_only_what_was_sent(data: dict[str, Any]) -> None:
    assert PART.values(data) == {name: value for name, value in data.items() if name in ("title", "notes", "pin")}


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["title", "notes", "pin", "id"]), st.text(min_size=1)))
def test_partial_input_touches_no_other_field(data: dict[str, Any]) -> None:
    assert PART.values(data) == {name: value for name, value in data.items() if name != "id"}


@pytest.mark.parametrize(
    ("model", "data", "errors"),
    [
        (FULL, {}, [("missing", ["data", "title"])]),
        (
            FULL,
            {"title": "", "notes": 7},
            [("string_too_short", ["data", "title"]), ("string_type", ["data", "notes"])],
        ),
        (PART, {"title": ""}, [("string_too_short", ["data", "title"])]),
        (PART, {"title": None}, [("string_type", ["data", "title"])]),
    ],
)
def test_errors_are_located_below_data(model: InputModel, data: Any, errors: Any) -> None:
    assert errors_of(model.values, data) == errors


@pytest.mark.parametrize("model", [FULL, PART])
@pytest.mark.parametrize("data", [None, [], "x", 7])
def test_input_that_is_no_object_is_refused(model: InputModel, data: Any) -> None:
    ((_, loc),) = errors_of(model.values, data)
    assert loc == ["data"]


def test_an_instance_is_accepted_without_validation() -> None:
    class In(BaseModel):
        id: int = 7
        title: str = "a"

    assert FULL.values(In()) == {"title": "a"}
    assert PART.values(Card(id=1, title="b")) == {"title": "b"}


def test_the_original_model_is_unchanged() -> None:
    assert set(Card.model_fields) == {"id", "title", "notes", "pin"}
    with pytest.raises(ValueError, match="id"):
        Card(title="a")  # type: ignore[call-arg]
    assert Card(id=1, title="a").model_dump() == {"id": 1, "title": "a", "notes": "none yet", "pin": "0000"}


def test_derived_models_are_cached() -> None:
    assert input_model(Card) is FULL
    assert input_model(Card, partial=True) is PART
    assert output_model(Card) is output_model(Card)
    assert repr(PART) == "input_model(Card, partial=True)"
    assert repr(FULL) == "input_model(Card)"


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    user_id: Annotated[int, ReadOnly] = 0
    full_name: str
    first_seen: Annotated[dt.date, WriteOnly] | dt.date = dt.date(2026, 1, 1)


class Both(BaseModel):
    model_config = ConfigDict(populate_by_name=True, extra="allow")

    number: Annotated[int, ReadOnly] = Field(0, validation_alias=AliasChoices("no", AliasPath("meta", "no")))
    title: str = Field(alias="Title")


def test_aliases_work_as_in_pydantic() -> None:
    class Named(BaseModel):
        model_config = ConfigDict(alias_generator=to_camel)

        full_name: str
        user_id: Annotated[int, ReadOnly] = 0

    assert input_model(Named).values({"fullName": "Ada", "userId": 7}) == {"full_name": "Ada"}
    assert errors_of(input_model(Named).values, {"full_name": "Ada"}) == [("missing", ["data", "fullName"])]
    assert input_model(Both).values({"title": "a"}) == {"title": "a"}
    assert input_model(Both, partial=True).values({"Title": "a"}) == {"title": "a"}


def test_read_only_fields_are_ignored_under_every_alias() -> None:
    assert input_model(Both).values({"Title": "a", "number": 1, "no": 2, "meta": {"no": 3}, "more": 4}) == {
        "title": "a"
    }


@pytest.mark.parametrize("partial", [False, True])
def test_a_model_that_forbids_extras_ignores_read_only_fields(partial: bool) -> None:
    class Strictly(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)

        id: Annotated[int, ReadOnly]
        title: str

    assert input_model(Strictly, partial).values({"id": 7, "title": "a"}) == {"title": "a"}
    assert errors_of(input_model(Strictly, partial).values, {"title": "a", "x": 1}) == [
        ("extra_forbidden", ["data", "x"])
    ]
    assert errors_of(input_model(Strictly, partial).values, {"title": 7}) == [("string_type", ["data", "title"])]


def test_a_strict_model_accepts_the_json_form_of_values() -> None:
    class Strictly(BaseModel):
        model_config = ConfigDict(strict=True)

        day: dt.date

    assert input_model(Strictly).values({"day": "2026-11-23"}) == {"day": dt.date(2026, 11, 23)}


def test_field_validators_are_kept() -> None:
    class Checked(BaseModel):
        low: int = 0
        high: int = 9

        @field_validator("low", mode="before")
        @classmethod
        def _words(cls, value: Any) -> Any:
            return {"one": 1}.get(value, value)

        @field_validator("high")
        @classmethod
        def _above(cls, value: int, info: ValidationInfo) -> int:
            if value < info.data.get("low", 0):
                raise ValueError("high is below low")
            return value

    assert input_model(Checked).values({"low": "one"}) == {"low": 1, "high": 9}
    assert input_model(Checked, partial=True).values({"low": "one"}) == {"low": 1}
    assert errors_of(input_model(Checked).values, {"low": 5, "high": 1}) == [("value_error", ["data", "high"])]


def test_default_factories_do_not_run_for_partial_input() -> None:
    class Made(BaseModel):
        model_config = ConfigDict(validate_default=True)

        tags: list[str] = Field(default_factory=list)
        title: str

    assert input_model(Made).values({"title": "a"}) == {"tags": [], "title": "a"}
    assert input_model(Made, partial=True).values({}) == {}


def test_serializers_of_fields_do_not_change_the_input() -> None:
    class Dated(BaseModel):
        day: dt.date
        hidden: str = Field("h", exclude=True)

        @field_serializer("day")
        def _day(self, value: dt.date) -> str:
            return value.strftime("%d.%m.")

        @computed_field  # type: ignore[prop-decorator]
        @property
        def year(self) -> int:
            return self.day.year

    assert input_model(Dated).values({"day": "2026-11-23"}) == {"day": dt.date(2026, 11, 23), "hidden": "h"}
    assert shown(Dated, SimpleNamespace(day=dt.date(2026, 11, 23), hidden="h")) == {"day": "23.11.", "year": 2026}


# ------------------------------------------------------------------------------------------------- the whole
class Span(BaseModel):
    id: Annotated[int, ReadOnly]
    by: Annotated[str, ReadOnly] = "nobody"
    start: int
    end: int = 100
    secret: Annotated[str, WriteOnly] = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"start": value[0], "end": value[1]} if isinstance(value, list) and len(value) == 2 else value

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.start > self.end:
            raise ValueError(f"{self.id} of {self.by} ends before it starts")
        return self


ROW = SimpleNamespace(id=7, by="ada", start=10, end=20, secret="s")


def test_model_validators_see_defaults_for_missing_fields() -> None:
    assert input_model(Span).values([1, 2]) == {"start": 1, "end": 2, "secret": ""}
    with pytest.raises(InvalidParameters) as raised:
        input_model(Span).values({"start": 3, "end": 2})
    assert raised.value.errors[0]["msg"] == "Value error, None of nobody ends before it starts"
    assert raised.value.errors[0]["loc"] == ["data"]


def test_model_validators_see_the_object_for_partial_input() -> None:
    part = input_model(Span, partial=True)
    assert part.values({"start": 12}, ROW) == {"start": 12}
    assert part.values([11, 12], ROW) == {"start": 11, "end": 12}
    assert part.values({"end": 5}) == {"end": 5}  # without an object, nothing is checked as a whole
    with pytest.raises(InvalidParameters, match="7 of ada ends before it starts"):
        part.values({"end": 5}, ROW)
    with pytest.raises(InvalidParameters, match="7 of ada ends before it starts"):
        input_model(Span).values({"start": 3, "end": 2}, ROW)


def test_a_row_may_lack_write_only_fields() -> None:
    class Account(BaseModel):
        name: str
        password: Annotated[str | None, WriteOnly] = None
        again: Annotated[str | None, WriteOnly] = None

        @model_validator(mode="after")
        def _alike(self) -> Self:
            if self.password != self.again:
                raise ValueError("the passwords differ")
            return self

    row, part = SimpleNamespace(name="ada", password_hash="x"), input_model(Account, partial=True)
    assert part.values({"name": "eve"}, row) == {"name": "eve"}
    assert errors_of(part.values, {"password": "a"}, row) == [("value_error", ["data"])]
    assert shown(Account, row) == {"name": "ada"}
    assert shown(Account, SimpleNamespace(name="ada", password="a", again="b")) == {"name": "ada"}


def test_wrap_validators_of_models_run_too() -> None:
    class Around(BaseModel):
        title: str

        @model_validator(mode="wrap")
        @classmethod
        def _upper(cls, value: Any, handler: Any) -> Any:
            made = handler(value)
            made.title = made.title.upper()
            return made

    assert input_model(Around).values({"title": "a"}) == {"title": "A"}
    assert input_model(Around, partial=True).values({"title": "a"}, SimpleNamespace(title="b")) == {"title": "A"}


def test_post_init_and_private_attributes_work() -> None:
    class Made(BaseModel):
        title: str
        slug: str = ""
        _seen: int = PrivateAttr(7)

        def model_post_init(self, context: Any) -> None:
            self.slug = f"{self.title.lower()}-{self._seen}"

    class Private(BaseModel):
        title: str
        _limit: int = PrivateAttr(3)

        @model_validator(mode="after")
        def _short(self) -> Self:
            if len(self.title) > self._limit:
                raise ValueError("too long")
            return self

    assert input_model(Made).values({"title": "A"}) == {"title": "A", "slug": "a-7"}
    assert input_model(Made, partial=True).values({"slug": "x"}, SimpleNamespace(title="B")) == {"slug": "b-7"}
    assert input_model(Private).values({"title": "abc"}) == {"title": "abc"}
    assert errors_of(input_model(Private, partial=True).values, {"title": "abcd"}, ROW) == [("value_error", ["data"])]


# ------------------------------------------------------------------------------------------------- output
def test_output_leaves_out_write_only_fields() -> None:
    assert shown(Card, SimpleNamespace(id=1, title="a", notes=None, pin="1")) == {"id": 1, "title": "a", "notes": None}
    assert shown(Card, Card(id=1, title="a")) == {"id": 1, "title": "a", "notes": "none yet"}


def test_a_model_without_marks_is_its_own_output() -> None:
    class Plain(BaseModel):
        id: Annotated[int, ReadOnly]
        inner: "Plain | None" = None

    assert output_model(Plain) is Plain


class Inner(BaseModel):
    id: Annotated[int, ReadOnly] = 0
    text: str
    secret: Annotated[str, WriteOnly] = "s"

    @model_validator(mode="after")
    def _looks(self) -> Self:
        assert self.id == 0
        return self


class Box(BaseModel, Generic[T]):
    inside: T


class Outer(BaseModel):
    one: Inner | None = None
    many: list[Inner] = []
    by_name: dict[str, Inner] = {}
    boxed: Box[Inner] | None = None
    kind: str | Inner = "text"
    below: "list[Outer]" = []


INSIDE = {"id": 3, "text": "t", "secret": "hidden"}
EVERYWHERE: dict[str, Any] = {
    "one": INSIDE,
    "many": [INSIDE],
    "by_name": {"default": INSIDE},
    "boxed": {"inside": INSIDE},
    "kind": INSIDE,
    "below": [{"one": INSIDE}],
}


def test_nested_models_leave_out_read_only_fields() -> None:
    written = {"text": "t", "secret": "hidden"}
    values = input_model(Outer).values(EVERYWHERE)
    below = values.pop("below")
    assert values == {
        "one": written,
        "many": [written],
        "by_name": {"default": written},
        "boxed": {"inside": written},
        "kind": written,
    }
    assert [entry["one"] for entry in below] == [written]
    assert input_model(Outer, partial=True).values({"many": [INSIDE]}) == {"many": [written]}


class Badge(BaseModel):
    verified: Annotated[bool, ReadOnly] = False
    note: str = ""


class Wearer(BaseModel):
    badge: Badge = Badge()
    spare: Badge | None = None


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("kept", [Badge(verified=True), {"verified": True, "note": "old"}], ids=["model", "json"])
def test_read_only_fields_of_a_nested_model_keep_their_value(partial: bool, kept: Any) -> None:
    wearer = Wearer.model_construct(badge=kept, spare=None)
    sent = {"badge": {"note": "new", "verified": False}, "spare": {"verified": True}}
    values = input_model(Wearer, partial=partial).values(sent, wearer)
    assert values == {"badge": {"note": "new", "verified": True}, "spare": {"note": ""}}


def test_nested_models_leave_out_write_only_fields() -> None:
    row = Outer.model_construct(
        one=SimpleNamespace(id=0, text="t", secret="hidden"),
        many=[Inner(text="t", secret="hidden")],
        by_name={"default": Inner(text="t", secret="hidden")},
        boxed=SimpleNamespace(inside=SimpleNamespace(id=0, text="t", secret="hidden")),
        kind=SimpleNamespace(id=0, text="t", secret="hidden"),
        below=[Outer(one=Inner(text="t", secret="hidden"))],
    )
    output = output_model(Outer).model_validate(row, from_attributes=True)
    text = json_encoder(output_model(Outer))(output)
    assert text == output.model_dump_json() == json_encoder()(output)
    assert "hidden" not in text
    assert "secret" not in text
    assert text.count('"text":"t"') == 6


@pytest.mark.parametrize("name", ["config", "metadata", "default", "expected", "fields", "choices", "type", "cls"])
def test_a_field_may_have_a_name_that_core_schemas_use(name: str) -> None:
    """Its model is rewritten like any other: its `WriteOnly` field stays here, its `ReadOnly` field is not taken."""

    class Nested(BaseModel):
        id: Annotated[int, ReadOnly] = 7
        pin: Annotated[str, WriteOnly] = "1234"

    holder = create_model("Holder", **{name: (Nested, ...)})  # type: ignore[call-overload]
    value = holder(**{name: Nested()})
    for written in (json_encoder(holder)(value), json_encoder(list[holder])([value]), json_encoder()({"a": value})):
        assert f'{{"{name}":{{"id":7}}}}' in written
    taken = json_validator(holder)({name: {"id": 1, "pin": "x"}})
    assert getattr(taken, name) == Nested(pin="x")
    assert input_model(holder).values({name: {"id": 1, "pin": "x"}}) == {name: {"pin": "x"}}


@pytest.mark.parametrize("name", ["body", "metadata", "serialization"])
def test_a_validator_of_any_field_reads_the_json_mode(name: str) -> None:
    def mode(value: Any, info: ValidationInfo) -> str:
        return info.mode

    holder = create_model("Holder", **{name: (Annotated[str, BeforeValidator(mode)], ...)})  # type: ignore[call-overload]
    assert getattr(json_validator(holder)({name: "x"}), name) == "json"


@pytest.mark.parametrize("extra", ["allow", "forbid", "ignore"])
def test_write_only_fields_do_not_leak_as_extras(extra: Any) -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra=extra)

        id: int
        pin: Annotated[str, WriteOnly] = Field("", validation_alias="Pin")

    for row in ({"id": 1, "pin": "s", "Pin": "s"}, SimpleNamespace(id=1, pin="s", Pin="s"), Open(id=1, Pin="s")):
        assert shown(Open, row) == {"id": 1}


def test_mutually_recursive_models() -> None:
    class Left(BaseModel):
        pin: Annotated[str, WriteOnly] = "p"
        right: "Right | None" = None

    class Right(BaseModel):
        pin: Annotated[str, WriteOnly] = "p"
        left: Left | None = None

    Left.model_rebuild()
    assert shown(Left, Left(right=Right(left=Left()))) == {"right": {"left": {"right": None}}}
    assert shown(Right, Right(left=Left(right=Right()))) == {"left": {"right": {"left": None}}}


def test_attributes_of_objects_are_read_by_name_not_alias() -> None:
    class Named(BaseModel):
        model_config = ConfigDict(alias_generator=to_camel)

        full_name: str
        city: str = Field(validation_alias=AliasPath("home", "city"))

    row = SimpleNamespace(full_name="Ada", home=SimpleNamespace(city="London"))
    assert shown(Named, row) == {"full_name": "Ada", "city": "London"}
    assert shown(Named, SimpleNamespace(fullName="Ada", city="Paris")) == {"full_name": "Ada", "city": "Paris"}


def test_a_model_with_a_custom_init() -> None:
    class Own(BaseModel):
        id: Annotated[int, ReadOnly]
        title: str
        pin: Annotated[str, WriteOnly] = ""

        def __init__(self, **values: Any) -> None:
            super().__init__(**values)

    assert input_model(Own).values({"title": "a"}) == {"title": "a", "pin": ""}
    assert shown(Own, SimpleNamespace(id=1, title="a")) == {"id": 1, "title": "a"}


def test_json_schemas_of_derived_models() -> None:
    def properties(annotation: Any, mode: Any) -> set[str]:
        return set(TypeAdapter(annotation).json_schema(mode=mode)["properties"])

    assert properties(Annotated[Any, FULL], "validation") == {"title", "notes", "pin"}
    assert properties(output_model(Card), "serialization") == {"id", "title", "notes"}
    partial = TypeAdapter(Annotated[Any, PART]).json_schema()
    assert "required" not in partial
    assert partial["properties"]["title"] == {"minLength": 1, "title": "Title", "type": "string"}
    below = TypeAdapter(Annotated[Any, input_model(Outer)]).json_schema()["$defs"]
    assert set(below["InnerInput"]["properties"]) == {"text", "secret"}


# ------------------------------------------------------------------------------------------------- tables, misuse
class Hero(SQLModel, table=True):
    id: int | None = SQLField(default=None, primary_key=True)
    name: str


class SecretHero(SQLModel, table=True):
    id: Annotated[int | None, ReadOnly] = SQLField(default=None, primary_key=True)
    pin: Annotated[str, WriteOnly] = ""


def test_an_sqlmodel_table() -> None:
    assert input_model(Hero).values({"name": "Ada"}) == {"id": None, "name": "Ada"}
    assert input_model(Hero, partial=True).values({"name": "Ada"}, Hero(id=1, name="Eve")) == {"name": "Ada"}
    assert shown(Hero, Hero(id=1, name="Ada")) == {"id": 1, "name": "Ada"}
    assert input_model(SecretHero).values({"id": 7, "pin": "1"}) == {"pin": "1"}
    with pytest.raises(ImproperlyConfigured, match="SecretHero is a table"):
        output_model(SecretHero)
    with pytest.raises(ImproperlyConfigured, match="SecretHero is a table"):
        json_validator(SecretHero)
    assert json_encoder(SecretHero)(SecretHero(id=1, pin="1")) == '{"id":1}'


class PartOfAType(BaseModel):
    pin: Annotated[str, WriteOnly] | None = None
    ids: list[Annotated[int, ReadOnly]] = []


@dataclasses.dataclass
class Data:
    pin: Annotated[str, WriteOnly]


class Typed(TypedDict):
    id: Annotated[int, ReadOnly]


class Holds(BaseModel, Generic[T]):
    it: T


class Unfinished(BaseModel):
    later: "DefinedNowhere"  # type: ignore[name-defined]  # noqa: F821


class Cyclic(BaseModel):
    id: Annotated[int, ReadOnly] = 0
    text: str
    below: "list[Cyclic]" = []

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler(source)


def test_a_recursive_model() -> None:
    data = {"id": 1, "text": "a", "below": [{"id": 2, "text": "b", "below": []}]}
    written = {"text": "a", "below": [{"text": "b", "below": []}]}
    assert input_model(Cyclic).values(data) == written
    assert input_model(Cyclic, partial=True).values(data) == written
    assert errors_of(input_model(Cyclic, partial=True).values, {"below": [{}]}) == [
        ("missing", ["data", "below", 0, "text"])
    ]
    announced = TypeAdapter(Annotated[Any, input_model(Cyclic, partial=True)]).json_schema()
    assert "required" not in announced
    assert announced["$defs"]["CyclicInput"]["required"] == ["text"]


class OwnSchema(BaseModel):
    """A model whose schema is not a model schema."""

    text: str

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.no_info_after_validator_function(cls._made, core_schema.str_schema())

    @classmethod
    def _made(cls, text: str) -> Any:
        return cls.model_construct(text=text)


class OutOfReach(BaseModel):
    inner: OwnSchema
    id: Annotated[int, WriteOnly] = 0


def test_a_custom_core_schema_is_left_alone() -> None:
    assert input_model(OutOfReach).values({"inner": "a"}) == {"inner": {"text": "a"}, "id": 0}
    with pytest.raises(ImproperlyConfigured, match="or a model with a schema of its own, has none"):
        input_model(OwnSchema, partial=True)


def test_annotations_that_only_pydantic_can_resolve() -> None:
    class Local:
        pass

    class Nowhere(TypedDict):
        pin: "Annotated[Local, WriteOnly]"

    class Has(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)

        it: Nowhere

    with pytest.raises(ImproperlyConfigured, match=r"annotations of Nowhere cannot be read: .*; define it first"):
        output_model(Has)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: output_model(PartOfAType), "PartOfAType.pin: WriteOnly marks a whole field; write Annotated"),
        (lambda: input_model(PartOfAType), "PartOfAType.ids: ReadOnly marks a whole field"),
        (lambda: output_model(Holds[Data]), "Data marks a field .* in pydantic models only; make it a BaseModel"),
        (lambda: output_model(Holds[Typed]), "Typed marks a field"),
        (lambda: input_model(Unfinished), "Unfinished is not fully defined"),
        (lambda: input_model(RootModel[int]), "needs fields; a RootModel, or a model with a schema of its own"),
        (
            lambda: input_model(int),
            "a serializer_class is a pydantic model, a subclass of BaseModel, not <class 'int'>",
        ),
        (lambda: output_model(Card(id=1, title="a")), "not Card\\(id=1"),
    ],
)
def test_misuse_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        call()
