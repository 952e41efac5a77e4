"""`wsaction.querysets._memory_table`: keys, unique fields, and drafts that are stored when their unit commits."""

import asyncio
import contextlib
import datetime
import enum
import uuid
from contextvars import Context
from typing import Annotated, Any

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
)

from wsaction.exceptions import Conflict, ImproperlyConfigured, NotFound
from wsaction.querysets import FieldError, MemoryQuerySet
from wsaction.querysets._lookups import UnknownClass, name_of
from wsaction.transactions import unit_of_work


class Card(BaseModel):
    id: int | None = None
    slug: str | None = None
    board: int | None = None
    place: int = 0
    title: Annotated[str, Field(max_length=9)] = "t"
    tags: list[str] = []


def deck(*rows: Card, **options: Any) -> MemoryQuerySet[Card]:
    return MemoryQuerySet(Card, rows=rows, unique=("slug", ("board", "place")), **options)


async def apart(work: Any) -> Any:
    """Runs work outside of the current unit of work."""
    return await asyncio.create_task(work, context=Context())


async def retitle(cards: MemoryQuerySet[Card], pk: int, **values: Any) -> None:
    await cards.update(await cards.get(pk=pk), values)


# ------------------------------------------------------------------------------------------------- keys
async def test_keys_increase_and_are_never_reused() -> None:
    cards = deck(Card(), Card(id=7), Card())
    assert [card.id async for card in cards] == [1, 7, 8]
    await cards.delete(await cards.get(pk=8))
    assert (await cards.create({"id": None})).id == 9
    with pytest.raises(ZeroDivisionError):
        await _create_and_fail(cards)
    assert (await cards.create({})).id == 11
    assert [card.id async for card in cards] == [1, 7, 9, 11]


async def _create_and_fail(cards: MemoryQuerySet[Card]) -> None:
    async with unit_of_work():
        assert (await cards.create({})).id == 10
        raise ZeroDivisionError


async def test_a_uuid_key_is_generated() -> None:
    class Key(BaseModel):
        key: uuid.UUID
        n: int = 0

    class Own(BaseModel):
        key: uuid.UUID = Field(default_factory=lambda: uuid.UUID(int=5))

    keys = MemoryQuerySet(Key, pk="key")
    one, two = await keys.create({}), await keys.create({"n": 2})
    assert one.key != two.key
    assert [row.key async for row in keys] == sorted([one.key, two.key])
    assert (await MemoryQuerySet(Own, pk="key").create({})).key == uuid.UUID(int=5)


async def test_keys_of_mixed_types_are_ordered() -> None:
    class Loose(BaseModel):
        id: Any

    rows = MemoryQuerySet(Loose, rows=[Loose(id=key) for key in ("b", 2, "a", 1)])
    assert [row.id async for row in rows] == [1, 2, "a", "b"]
    await rows.delete(await rows.get(pk="a"))
    assert [row.id async for row in rows] == [1, 2, "b"]
    async with unit_of_work():
        await rows.create({"id": "0"})
        assert [row.id async for row in rows] == [1, 2, "0", "b"]


async def test_a_key_cannot_change() -> None:
    cards = deck(Card(id=1))
    assert (await cards.update(await cards.get(pk=1), {"pk": "1", "title": "x"})).title == "x"
    with pytest.raises(Conflict, match="The id of a Card cannot change"):
        await cards.update(await cards.get(pk=1), {"id": 2})


# ------------------------------------------------------------------------------------------------- declarations
def test_unique_takes_names_of_fields() -> None:
    with pytest.raises(ImproperlyConfigured, match="Card has no field 'slugg' for a key; name one of id, slug"):
        MemoryQuerySet(Card, unique=["slugg"])
    with pytest.raises(Conflict) as caught:
        deck(Card(slug="a"), Card(slug="a"))
    assert caught.value.ctx == {"fields": ["slug"]}


async def test_values_use_names_of_fields_not_aliases() -> None:
    class Aliased(BaseModel):
        id: int = Field(alias="ID")
        a: str = Field(validation_alias=AliasChoices(AliasPath("x", 0), "A"))
        b: str = "b"

    class ByName(Aliased):
        model_config = ConfigDict(populate_by_name=True)
        c: str = Field("c", alias="C")

    for model in (Aliased, ByName):
        rows: Any = MemoryQuerySet(model)
        row = await rows.create({"a": "1"})
        assert ((await rows.update(row, {"a": "2"})).a, row.id) == ("2", 1)

    class Deep(BaseModel):
        id: int
        a: str = Field(validation_alias=AliasPath("x", 0))

    assert (await MemoryQuerySet(Deep).create({"a": "1"})).a == "1"  # type: ignore[var-annotated]


async def test_values_are_validated_by_the_model() -> None:
    class Pair(BaseModel):
        id: int
        low: int = 0
        high: int = 9

        @field_validator("high")
        @classmethod
        def above(cls, value: int, info: Any) -> int:
            if value < info.data["low"]:
                raise ValueError("too low")
            return value

    rows = MemoryQuerySet(Pair)
    pair = await rows.create({})
    with pytest.raises(ValidationError, match="too low"):
        await rows.update(pair, {"low": 10})
    assert (await rows.update(pair, {"low": 10, "high": "11"})).high == 11
    cards = deck(Card(id=1))
    with pytest.raises(ValidationError):
        await cards.update(await cards.get(pk=1), {"title": "x" * 10})
    with pytest.raises(FieldError, match="did you mean 'title'"):
        await cards.update(await cards.get(pk=1), {"titel": "x"})


# ------------------------------------------------------------------------------------------------- drafts
async def test_objects_within_a_unit_are_copies() -> None:
    cards = deck(Card(id=1, tags=["kept"]))
    async with unit_of_work():
        values = {"tags": ["kept", "too"]}
        for lent in (await cards.create({"tags": ["kept"]}), await cards.update(await cards.get(pk=1), values)):
            lent.tags.append("lost")
        values["tags"].append("lost")
        (await cards.get(pk=1)).tags.append("lost")
    assert [card.tags async for card in cards] == [["kept", "too"], ["kept"]]


async def test_a_unit_sees_its_own_changes_in_order() -> None:
    cards = deck(Card(id=1), Card(id=3), Card(id=5))
    async with unit_of_work():
        await cards.create({"id": 4, "slug": "new"})
        made = await cards.create({"id": 2})
        await cards.update(made, {"title": "made"})
        await cards.delete(await cards.get(pk=3))
        await cards.delete(await cards.get(pk=4))
        await cards.create({"id": 3, "title": "again"})
        await retitle(cards, 1, title="one")
        await retitle(cards, 1, slug="one")
        wanted = [(1, "one"), (2, "made"), (3, "again"), (5, "t")]
        assert [(card.id, card.title) async for card in cards] == wanted
        assert (await cards.count(), await cards[1:3].count(), await cards.filter(pk=4).exists()) == (4, 2, False)
        assert (await cards.get(slug="one")).id == 1
    assert [(card.id, card.title) async for card in cards] == wanted


async def test_unique_fields_within_a_unit() -> None:
    cards = deck(Card(id=1, slug="a"), Card(id=2, slug="b"))
    async with unit_of_work():
        await retitle(cards, 1, slug="c")
        await retitle(cards, 2, slug="a")  # no other row has it any more
        for values in ({"slug": "c"}, {"slug": "a"}):
            with pytest.raises(Conflict):
                await cards.create(values)
        with pytest.raises(Conflict):
            await retitle(cards, 2, slug="c")
        await cards.create({"slug": "b"})
        await cards.delete(await cards.get(slug="c"))
        await cards.create({"slug": "c"})
    assert [(card.id, card.slug) async for card in cards] == [(2, "a"), (5, "b"), (6, "c")]
    with pytest.raises(Conflict):
        await cards.create({"slug": "b"})
    await cards.create({"slug": "d"})


async def test_unique_values_may_be_swapped_within_a_unit() -> None:
    cards = deck(Card(id=1, slug="a"), Card(id=2, slug="b"))
    async with unit_of_work():
        await retitle(cards, 1, slug=None)
        await retitle(cards, 2, slug="a")
        await retitle(cards, 1, slug="b")
        await retitle(cards, 1, slug="b")  # changes nothing
    assert [(card.id, card.slug) async for card in cards] == [(1, "b"), (2, "a")]
    for slug in "ab":
        with pytest.raises(Conflict):
            await cards.create({"slug": slug})


@pytest.mark.parametrize("first", [True, False])
async def test_concurrent_changes_of_other_fields_are_merged(first: bool) -> None:
    cards = deck(Card(id=1, slug="a"), Card(id=2))
    async with unit_of_work():
        if first:
            await retitle(cards, 1, title="mine")
        await apart(retitle(cards, 1, slug="theirs"))
        if not first:
            await retitle(cards, 1, title="mine")
        assert (await cards.get(pk=1)).slug == "theirs"
    card = await cards.get(pk=1)
    assert (card.slug, card.title) == ("theirs", "mine")


async def test_concurrent_changes_may_conflict() -> None:
    async def unit(cards: MemoryQuerySet[Card], mine: Any, theirs: Any) -> None:
        async with unit_of_work():
            await mine(cards)
            await apart(theirs(cards))

    async def create(cards: MemoryQuerySet[Card]) -> None:
        await cards.create({"slug": "new"})

    async def take_key(cards: MemoryQuerySet[Card]) -> None:
        await cards.create({"id": 9})

    async def rename(cards: MemoryQuerySet[Card]) -> None:
        await retitle(cards, 2, slug="new")

    async def remove(cards: MemoryQuerySet[Card]) -> None:
        await cards.delete(await cards.get(pk=2))

    async def touch_both(cards: MemoryQuerySet[Card]) -> None:
        await retitle(cards, 1, slug="new")
        await retitle(cards, 2, title="touched")

    for mine, theirs, error in (
        (create, create, Conflict),
        (create, rename, Conflict),
        (rename, create, Conflict),
        (take_key, take_key, Conflict),
        (touch_both, rename, Conflict),
        (rename, remove, NotFound),
        (remove, remove, NotFound),
    ):
        cards, expected = deck(Card(id=1), Card(id=2)), deck(Card(id=1), Card(id=2))
        await theirs(expected)
        with pytest.raises(error):
            await unit(cards, mine, theirs)
        assert [(c.slug, c.title) async for c in cards] == [(c.slug, c.title) async for c in expected]


async def test_two_tables_commit_together_or_not_at_all() -> None:
    cards, others = deck(), deck()

    async def work() -> None:
        async with unit_of_work():
            await cards.create({"slug": "a"})
            await others.create({"slug": "a"})
            await apart(others.create({"slug": "a"}))

    with pytest.raises(Conflict):
        await work()
    assert (await cards.count(), await others.count()) == (0, 1)


async def test_a_row_that_others_deleted_is_not_found() -> None:
    cards = deck(Card(id=1))

    async def work() -> None:
        async with unit_of_work():
            await retitle(cards, 1, title="mine")
            await apart(cards.delete(await cards.get(pk=1)))
            assert await cards.count() == 0

    with pytest.raises(NotFound, match="This Card was deleted meanwhile"):
        await work()


class Level(enum.Enum):
    LOW = "z"
    MIDDLE = "m"
    HIGH = "a"


class Alarm(BaseModel):
    id: int
    level: Level | None = None


async def test_enumerations_are_ordered_by_their_members() -> None:
    levels = [Level.HIGH, None, Level.LOW, Level.MIDDLE, Level.LOW]
    alarms = MemoryQuerySet(Alarm, rows=[Alarm(id=number, level=level) for number, level in enumerate(levels)])

    async def found(**lookups: Any) -> list[int]:
        return [alarm.id async for alarm in alarms.filter(**lookups).order_by("level")]

    assert await found() == [2, 4, 3, 0, 1]
    assert [alarm.id async for alarm in alarms.order_by("-level")] == [1, 0, 3, 2, 4]
    assert await found(level__lt=Level.HIGH) == [2, 4, 3]
    assert await found(level__gte="m") == [3, 0]
    assert await found(level__range=(Level.LOW, Level.MIDDLE)) == [2, 4, 3]


class Visit(BaseModel):
    id: int
    at: datetime.datetime | None = None
    open: datetime.time | None = None


async def test_times_with_and_without_a_zone_compare() -> None:
    noon = datetime.datetime.fromisoformat("2026-01-01T12:00")
    later = datetime.datetime(2026, 1, 1, 14, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    rows = [
        Visit(id=1, at=later),
        Visit(id=2, at=noon),
        Visit(id=3),
        Visit(id=4, open="10:00"),
        Visit(id=5, open="09:00Z"),
    ]
    visits = MemoryQuerySet(Visit, rows=rows)

    async def found(*order: str, **lookups: Any) -> list[int]:
        return [visit.id async for visit in visits.filter(**lookups).order_by(*order)]

    assert await found("at", "open") == [2, 1, 5, 4, 3]
    assert await found("-at", "-open") == [3, 4, 5, 1, 2]
    for asked in (noon, noon.replace(tzinfo=datetime.UTC), "2026-01-01T13:00+01:00"):
        assert await found(at=asked) == [2]
        assert await found(at__in=[asked, None]) == [2]
        assert await found(at__lte=asked) == [2]
        assert await found(at__gt=asked) == [1]
        assert await found(at__range=[asked, later]) == [1, 2]
    assert await found(open__lt="10:00Z") == [5]


async def test_a_changed_row_keeps_its_subclass() -> None:
    class Document(BaseModel):
        id: int
        title: str

    class Letter(Document):
        owner: int
        readers: list[int] = []

    documents = MemoryQuerySet(Document, rows=[Letter(id=1, title="a", owner=7), Document(id=2, title="b")])
    letter = await documents.update(await documents.get(pk=1), {"title": "c"})
    assert letter == Letter(id=1, title="c", owner=7)
    letter.readers.append(1)  # a list of the copy alone
    assert await documents.get(pk=1) == Letter(id=1, title="c", owner=7)
    kind = name_of(Letter)
    values = documents.to_json(documents.values_of(letter), kind)
    assert documents.object_of(values["exact"], kind) == letter
    with pytest.raises(UnknownClass):
        documents.object_of({"id": 1}, "Invoice")
    with pytest.raises(AttributeError):
        documents.object_of({"id": 1, "title": "a"}, kind).readers  # noqa: B018  # its default is not what it had


class Entry(BaseModel):
    id: int
    note: str = ""
    seen: Any = None
    day: datetime.date | None = None


class LongEntry(Entry):
    size: int = 0


@pytest.mark.parametrize("kind", [Entry, LongEntry])
async def test_an_updated_row_of_any_class_shares_nothing_with_the_values(kind: type[Entry]) -> None:
    entries = MemoryQuerySet(Entry, rows=[kind(id=1)])
    for in_a_unit in (False, True):
        seen: dict[str, list[int]] = {"by": []}
        async with unit_of_work() if in_a_unit else contextlib.nullcontext():
            changed = await entries.update(await entries.get(pk=1), {"seen": seen})
            seen["by"].append(1)
            changed.seen["by"].append(2)
        assert (await entries.get(pk=1)).seen == {"by": []}


@pytest.mark.parametrize("kind", [Entry, LongEntry])
async def test_values_of_other_types_are_stored_in_a_row_of_any_class(kind: type[Entry]) -> None:
    entries = MemoryQuerySet(Entry, rows=[kind(id=1)])
    changed = await entries.update(await entries.get(pk=1), {"note": datetime.date(2026, 12, 1)})
    assert changed == kind(id=1, note="2026-12-01")


async def test_private_and_extra_values_of_a_row_are_not_shared() -> None:
    class Open(BaseModel, extra="allow"):
        id: int
        _log: list[int] = PrivateAttr(default_factory=list)

    first = Open(id=1, tags=["kept"])  # type: ignore[call-arg]  # it takes any
    first._log.append(1)
    rows: Any = MemoryQuerySet(Open, rows=[first])
    for lent in (first, await rows.get(pk=1), await rows.update(first, {"id": 1}), (await rows[:1].fetch())[0]):
        lent._log.append(2)
        (lent.model_extra or {}).get("tags", []).append("lost")
    assert ((await rows.get(pk=1)).tags, (await rows.get(pk=1))._log) == (["kept"], [1])
