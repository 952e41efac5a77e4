"""The tests that every queryset must pass: run them on one of your own.

Subclass `QuerySetContract`, say in `make` how to get a queryset with some rows, and let a test runner that knows async
functions (pytest with anyio's plugin) find the subclass by its name::

    class TestMyQuerySet(QuerySetContract):
        @asynccontextmanager
        async def make(self, rows):
            yield MyQuerySet(Thing, rows)

The objects have the fields of `ROWS`. Units of work must not see each other's changes, so no database that has one
connection for all (``sqlite+aiosqlite:///:memory:``) will do.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from typing import Any

from wsaction.exceptions import Conflict, NotFound
from wsaction.querysets._base import MultipleObjectsReturned
from wsaction.querysets._lookups import LOOKUPS as LOOKUP_NAMES
from wsaction.querysets._lookups import FieldError, InvalidLookup, Q
from wsaction.testing._queryset_cases import LOOKUPS, NEW, NOWHERE, ORDERS, ROWS, UNASKABLE
from wsaction.transactions import unit_of_work

__all__ = ("ROWS", "QuerySetContract")


class QuerySetContract(ABC):
    """What a queryset must do; see the module."""

    @abstractmethod
    def make(self, rows: Sequence[Mapping[str, Any]]) -> AbstractAsyncContextManager[Any]:
        """A queryset of objects with these values, for the length of a block."""

    # ---------------------------------------------------------------------------------------------- reading
    async def test_lookups(self) -> None:
        async with self.make(ROWS) as things:
            for q, slugs in LOOKUPS:
                _same(await _slugs(things.filter(q)), slugs, q)
                _same(await things.filter(q).count(), len(slugs), q)
                _same(await _slugs(things.exclude(q)), _left(slugs) if q else "abcde", ("exclude", q))

    async def test_orders_are_total_and_null_is_the_greatest(self) -> None:
        async with self.make(ROWS) as things:
            for order, slugs in ORDERS:
                _same(await _slugs(things.order_by(*order)), slugs, order)
            _same(await _slugs(things.order_by("-pk").order_by()), "abcde", "the last order counts")

    async def test_slices_compose(self) -> None:
        async with self.make(ROWS) as things:
            for start, stop in ((None, 2), (1, 3), (3, None), (4, 9), (7, 9), (2, 1), (0, 0)):
                part = things.order_by("-pk")[start:stop]
                _same(await _slugs(part), "edcba"[start:stop], (start, stop))
                _same(await part.count(), len("edcba"[start:stop]), (start, stop))
            _same(await _slugs(things[1:][1:3]), "cd", "[1:][1:3]")
            _same(await _slugs(things[:2][1:5]), "b", "[:2][1:5]")
            with _raises(ValueError):
                things[-1:]
            with _raises(ValueError):
                things[::2]
            with _raises(TypeError):
                things[0]
            with _raises(TypeError):
                things[:2].filter(slug="a")
            with _raises(TypeError):
                things[:2].order_by("slug")

    async def test_narrowing_leaves_the_original_as_it_was(self) -> None:
        async with self.make(ROWS) as things:
            narrowed = things.filter(done=True)
            narrowed.exclude(slug="a").order_by("-pk")[:1]
            _same(await _slugs(narrowed), "ad", "narrowed")
            _same(await _slugs(narrowed.all().filter(slug="d")), "d", "narrowed again")
            _same(await _slugs(things), "abcde", "the original")

    async def test_one_object(self) -> None:
        async with self.make(ROWS) as things:
            _same((await things.get(pk="2")).slug, "b", "get")
            _same((await things.filter(done=True).get(~Q(slug="a"))).slug, "d", "get")
            _same((await things.order_by("-rank", "-pk").first()).slug, "b", "first")
            _same(await things.filter(slug="z").first(), None, "first")
            _same(await things.filter(slug="z").exists(), False, "exists")
            _same(await things.filter(slug="a").exists(), True, "exists")
            for missing in NOWHERE:
                with _raises(NotFound):
                    await things.get(**missing)
            with _raises(NotFound):
                await things.filter(done=False).get(pk=1)
            with _raises(MultipleObjectsReturned):
                await things.get(rank=3)

    async def test_what_cannot_be_asked(self) -> None:
        async with self.make(ROWS) as things:
            for name in ("slugg", "slug__like", "owner__nam", "rank__contains", "slug__exact__exact", "", "__"):
                with _raises(FieldError):
                    things.filter(**{name: 1})
            for name in ("slugg", "-slugg", "slug__lt", "--slug"):
                with _raises(FieldError):
                    things.order_by(name)
            for name, value in UNASKABLE:
                with _raises(InvalidLookup) as told:
                    things.exclude(**{name: value})
                asked = (told[0].field, told[0].lookup, told[0].value)
                _same(asked, (*_parted(name), value), name)

    # ---------------------------------------------------------------------------------------------- writing
    async def test_create(self) -> None:
        async with self.make(ROWS) as things:
            made = await things.filter(slug="a").create(NEW)
            _same((made.id > 5, made.title, made.rank), (True, "New", None), "created")
            _same((await things.get(pk=made.id)).slug, "new", "created")
            _same((await things.create({**NEW, "slug": "null", "board": None})).board, None, "nulls do not clash")
            for clash, fields in (({"slug": "a"}, ["slug"]), ({"slug": "x", "board": 1, "position": 2},
                                  ["board", "position"]), ({"slug": "x", "id": 1}, ["id"])):  # fmt: skip
                with _raises(Conflict) as told:
                    await things.create({**NEW, **clash})
                _same(told[0].ctx, {"fields": fields}, clash)
                if "SELECT" in str(told[0]).upper() or "INSERT" in str(told[0]).upper():
                    raise AssertionError(f"a client must not be told SQL: {told[0]}")
            _same(await things.count(), 7, "refused")
            with _raises(FieldError):
                await things.create({**NEW, "slugg": "x"})

    async def test_update(self) -> None:
        async with self.make(ROWS) as things:
            changed = await things.update(await things.get(pk=1), {"title": "Other", "rank": None})
            _same((changed.title, changed.rank, changed.slug), ("Other", None, "a"), "update")
            again = await things.get(pk=1)
            _same((again.title, again.rank, again.done), ("Other", None, True), "updated")
            outside, gone = await things.get(pk=2), await things.get(pk=3)
            await things.delete(await things.get(pk=3))
            for queryset, obj in (
                (things.filter(done=True), outside),
                (things.exclude(slug="b"), outside),
                (things, gone),
            ):
                with _raises(NotFound):
                    await queryset.update(obj, {"title": "never"})
            _same((await things.get(pk=2)).title, "apple", "not among these")
            for values, fields in (({"slug": "a"}, ["slug"]), ({"pk": 77}, ["id"])):
                with _raises(Conflict) as told:
                    await things.update(await things.get(pk=2), values)
                _same(told[0].ctx, {"fields": fields}, values)
            with _raises(FieldError):
                await things.update(outside, {"slugg": "x"})
            with _raises(TypeError):
                await things[:1].update(again, {"title": "never"})
            _same(await _slugs(things), "abde", "updated")

    async def test_delete(self) -> None:
        async with self.make(ROWS) as things:
            first, second = await things.get(pk=1), await things.get(pk=2)
            await things.filter(done=True).delete(first)
            with _raises(NotFound):
                await things.delete(first)
            with _raises(NotFound):
                await things.filter(done=True).delete(second)
            _same(await _slugs(things), "bcde", "deleted")

    # ---------------------------------------------------------------------------------------------- units of work
    async def test_a_unit_is_kept_as_a_whole_or_not_at_all(self) -> None:
        async with self.make(ROWS) as things:
            with _raises(ZeroDivisionError):
                async with unit_of_work():
                    await self._change(things)
                    raise ZeroDivisionError
            _same(await _slugs(things), "abcde", "rolled back")
            _same((await things.get(pk=2)).title, "apple", "rolled back")
            async with unit_of_work():
                await self._change(things)
                _same(await _slugs(things.order_by("slug")), "bcdenew", "its own changes")
                _same(await _elsewhere(_slugs(things)), "abcde", "seen from elsewhere")
            _same(await _slugs(things.order_by("slug")), "bcdenew", "committed")
            _same((await things.get(pk=2)).title, "Changed", "committed")

    async def test_a_refused_change_is_taken_back_alone(self) -> None:
        async with self.make(ROWS) as things:
            async with unit_of_work():
                second = await things.get(pk=2)
                with _raises(Conflict):
                    await things.create({**NEW, "slug": "a"})
                _same(second.title, "apple", "still readable")
                second = await things.update(second, {"title": "Changed"})
                with _raises(Conflict):
                    await things.update(second, {"slug": "c"})
                await things.create(NEW)
            _same(await _slugs(things.order_by("slug")), "abcdenew", "kept")
            _same((await things.get(pk=2)).title, "Changed", "kept")

    async def test_changes_of_different_fields_all_stay(self) -> None:
        async with self.make(ROWS) as things:
            async with unit_of_work():
                mine = await things.get(pk=1)
                await _elsewhere(self._retitle(things))
                await things.update(mine, {"rank": 8})
            both = await things.get(pk=1)
            _same((both.title, both.rank), ("Elsewhere", 8), "both")

    async def test_what_is_to_follow_a_commit(self) -> None:
        async with self.make(ROWS) as things:
            told: list[Any] = []

            async def count() -> None:
                told.append(await things.count())

            async with unit_of_work() as unit:
                unit.on_commit(count)
                unit.on_commit(lambda: told.append("after"))
                await things.create(NEW)
                _same(told, [], "before the commit")
            _same(told, [6, "after"], "after the commit")

    async def test_a_unit_that_is_cancelled_keeps_nothing(self) -> None:
        async with self.make(ROWS) as things:
            changed, never = asyncio.Event(), asyncio.Event()

            async def work() -> None:
                async with unit_of_work():
                    await self._change(things)
                    changed.set()
                    await never.wait()

            task = asyncio.create_task(work())
            await changed.wait()
            task.cancel()
            with _raises(asyncio.CancelledError):
                await task
            _same(await _slugs(things), "abcde", "rolled back")

    async def _change(self, things: Any) -> None:
        await things.create(NEW)
        await things.update(await things.get(pk=2), {"title": "Changed"})
        await things.delete(await things.get(pk=1))

    async def _retitle(self, things: Any) -> None:
        await things.update(await things.get(pk=1), {"title": "Elsewhere"})


async def _slugs(things: Any) -> str:
    return "".join([one.slug async for one in things])


def _parted(name: str) -> tuple[str, str]:
    """A lookup's path and its comparison."""
    path, _, lookup = name.replace("pk", "id").rpartition("__")
    return (path, lookup) if lookup in LOOKUP_NAMES and path else (name.replace("pk", "id"), "exact")


def _left(slugs: str) -> str:
    return "".join(slug for slug in "abcde" if slug not in slugs)


async def _elsewhere(work: Any) -> Any:
    """What it returns outside of the unit of work under way."""
    return await asyncio.create_task(work, context=Context())


def _same(found: Any, wanted: Any, what: Any) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, got {found!r}")


class _raises:  # reads as what it does
    """Its block must raise this error, which is then in the list that it yields."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error, self._told = error, list[Any]()

    def __enter__(self) -> list[Any]:
        return self._told

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: object) -> bool:
        if exc is None:
            raise AssertionError(f"expected {self._error.__name__}, and nothing was raised")
        self._told.append(exc)
        return isinstance(exc, self._error)
