"""`QuerySetContract`: tests that every queryset must pass, to run on a queryset of your own.

Subclass `QuerySetContract` and override `make`, which provides a queryset with given rows. A test runner for async
functions, such as pytest with anyio's plugin, finds the subclass by its name::

    class TestMyQuerySet(QuerySetContract):
        @asynccontextmanager
        async def make(self, rows):
            yield MyQuerySet(Thing, rows)

The objects have the fields of ``ROWS``. Units of work must be isolated from each other. A database with a single
connection, such as ``sqlite+aiosqlite:///:memory:``, therefore does not work.
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
from wsaction.testing._queryset_cases import CONFLICTS, INVALID_LOOKUPS, LOOKUPS, MISSING, NEW, ORDERS, ROWS
from wsaction.transactions import unit_of_work

__all__ = ("ROWS", "QuerySetContract")


class QuerySetContract(ABC):
    """Tests of a queryset. Subclasses override `make`; see the module for an example."""

    @abstractmethod
    def make(self, rows: Sequence[Mapping[str, Any]]) -> AbstractAsyncContextManager[Any]:
        """Returns an async context manager that provides a queryset of objects with the values of ``rows``."""

    # ---------------------------------------------------------------------------------------------- reading
    async def test_lookups(self) -> None:
        """``filter``, ``exclude`` and ``count`` support all lookups and combinations of `Q`."""
        async with self.make(ROWS) as queryset:
            for q, slugs in LOOKUPS:
                _check_equal(await _slugs(queryset.filter(q)), slugs, q)
                _check_equal(await queryset.filter(q).count(), len(slugs), q)
                _check_equal(await _slugs(queryset.exclude(q)), _others(slugs) if q else "abcde", ("exclude", q))

    async def test_orders_are_total_and_null_is_the_greatest(self) -> None:
        """Orders are total, by the key in the end; null is greater than any value. The last ``order_by`` wins."""
        async with self.make(ROWS) as queryset:
            for order, slugs in ORDERS:
                _check_equal(await _slugs(queryset.order_by(*order)), slugs, order)
            _check_equal(await _slugs(queryset.order_by("-pk").order_by()), "abcde", "the last order wins")

    async def test_slices_compose(self) -> None:
        """Slices of slices work. Negative bounds, steps, indexes, and narrowing a slice raise."""
        async with self.make(ROWS) as queryset:
            for start, stop in ((None, 2), (1, 3), (3, None), (4, 9), (7, 9), (2, 1), (0, 0)):
                part = queryset.order_by("-pk")[start:stop]
                _check_equal(await _slugs(part), "edcba"[start:stop], (start, stop))
                _check_equal(await part.count(), len("edcba"[start:stop]), (start, stop))
            _check_equal(await _slugs(queryset[1:][1:3]), "cd", "[1:][1:3]")
            _check_equal(await _slugs(queryset[:2][1:5]), "b", "[:2][1:5]")
            with _raises(ValueError):
                queryset[-1:]
            with _raises(ValueError):
                queryset[::2]
            with _raises(TypeError):
                queryset[0]
            with _raises(TypeError):
                queryset[:2].filter(slug="a")
            with _raises(TypeError):
                queryset[:2].order_by("slug")

    async def test_narrowing_leaves_the_original_as_it_was(self) -> None:
        """Methods that narrow return a new queryset and do not change the original."""
        async with self.make(ROWS) as queryset:
            narrowed = queryset.filter(done=True)
            narrowed.exclude(slug="a").order_by("-pk")[:1]
            _check_equal(await _slugs(narrowed), "ad", "narrowed")
            _check_equal(await _slugs(narrowed.all().filter(slug="d")), "d", "narrowed again")
            _check_equal(await _slugs(queryset), "abcde", "the original")

    async def test_one_object(self) -> None:
        """``get``, ``first`` and ``exists`` work; ``get`` raises `NotFound` and `MultipleObjectsReturned`."""
        async with self.make(ROWS) as queryset:
            _check_equal((await queryset.get(pk="2")).slug, "b", "get")
            _check_equal((await queryset.filter(done=True).get(~Q(slug="a"))).slug, "d", "get")
            _check_equal((await queryset.order_by("-rank", "-pk").first()).slug, "b", "first")
            _check_equal(await queryset.filter(slug="z").first(), None, "first")
            _check_equal(await queryset.filter(slug="z").exists(), False, "exists")
            _check_equal(await queryset.filter(slug="a").exists(), True, "exists")
            for missing in MISSING:
                with _raises(NotFound):
                    await queryset.get(**missing)
            with _raises(NotFound):
                await queryset.filter(done=False).get(pk=1)
            with _raises(MultipleObjectsReturned):
                await queryset.get(rank=3)

    async def test_what_cannot_be_asked(self) -> None:
        """Unknown fields and lookups raise `FieldError`; invalid values raise `InvalidLookup` with the details."""
        async with self.make(ROWS) as queryset:
            for name in ("slugg", "slug__like", "owner__nam", "rank__contains", "slug__exact__exact", "", "__"):
                with _raises(FieldError):
                    queryset.filter(**{name: 1})
            for name in ("slugg", "-slugg", "slug__lt", "--slug"):
                with _raises(FieldError):
                    queryset.order_by(name)
            for name, value in INVALID_LOOKUPS:
                with _raises(InvalidLookup) as errors:
                    queryset.exclude(**{name: value})
                refused = (errors[0].field, errors[0].lookup, errors[0].value)
                _check_equal(refused, (*_split_lookup(name), value), name)

    # ---------------------------------------------------------------------------------------------- writing
    async def test_create(self) -> None:
        """``create`` returns the object with a new key; conflicts raise `Conflict` with the fields, but no SQL."""
        async with self.make(ROWS) as queryset:
            created = await queryset.filter(slug="a").create(NEW)
            _check_equal((created.id > 5, created.title, created.rank), (True, "New", None), "created")
            _check_equal((await queryset.get(pk=created.id)).slug, "new", "created")
            created = await queryset.create({**NEW, "slug": "null", "board": None})
            _check_equal(created.board, None, "nulls do not clash")
            for values, fields in CONFLICTS:
                with _raises(Conflict) as errors:
                    await queryset.create({**NEW, **values})
                _check_equal(errors[0].ctx, {"fields": fields}, values)
                if "SELECT" in str(errors[0]).upper() or "INSERT" in str(errors[0]).upper():
                    raise AssertionError(f"the message for the client must not contain SQL: {errors[0]}")
            _check_equal(await queryset.count(), 7, "refused")
            with _raises(FieldError):
                await queryset.create({**NEW, "slugg": "x"})

    async def test_update(self) -> None:
        """``update`` changes and returns an object of this queryset; others raise `NotFound`, conflicts `Conflict`."""
        async with self.make(ROWS) as queryset:
            changed = await queryset.update(await queryset.get(pk=1), {"title": "Other", "rank": None})
            _check_equal((changed.title, changed.rank, changed.slug), ("Other", None, "a"), "update")
            reread = await queryset.get(pk=1)
            _check_equal((reread.title, reread.rank, reread.done), ("Other", None, True), "updated")
            outside, deleted = await queryset.get(pk=2), await queryset.get(pk=3)
            await queryset.delete(await queryset.get(pk=3))
            for narrowed, obj in (
                (queryset.filter(done=True), outside),
                (queryset.exclude(slug="b"), outside),
                (queryset, deleted),
            ):
                with _raises(NotFound):
                    await narrowed.update(obj, {"title": "never"})
            _check_equal((await queryset.get(pk=2)).title, "apple", "not among these")
            for values, fields in (({"slug": "a"}, ["slug"]), ({"pk": 77}, ["id"])):
                with _raises(Conflict) as errors:
                    await queryset.update(await queryset.get(pk=2), values)
                _check_equal(errors[0].ctx, {"fields": fields}, values)
            with _raises(FieldError):
                await queryset.update(outside, {"slugg": "x"})
            with _raises(TypeError):
                await queryset[:1].update(reread, {"title": "never"})
            _check_equal(await _slugs(queryset), "abde", "updated")

    async def test_delete(self) -> None:
        """``delete`` removes an object of this queryset; others raise `NotFound`."""
        async with self.make(ROWS) as queryset:
            first, second = await queryset.get(pk=1), await queryset.get(pk=2)
            await queryset.filter(done=True).delete(first)
            with _raises(NotFound):
                await queryset.delete(first)
            with _raises(NotFound):
                await queryset.filter(done=True).delete(second)
            _check_equal(await _slugs(queryset), "bcde", "deleted")

    # ---------------------------------------------------------------------------------------------- units of work
    async def test_a_unit_is_kept_as_a_whole_or_not_at_all(self) -> None:
        """A unit of work is committed as a whole, or rolled back. Until the commit, only the unit sees its changes."""
        async with self.make(ROWS) as queryset:
            with _raises(ZeroDivisionError):
                async with unit_of_work():
                    await self._change(queryset)
                    raise ZeroDivisionError
            _check_equal(await _slugs(queryset), "abcde", "rolled back")
            _check_equal((await queryset.get(pk=2)).title, "apple", "rolled back")
            async with unit_of_work():
                await self._change(queryset)
                _check_equal(await _slugs(queryset.order_by("slug")), "bcdenew", "its own changes")
                _check_equal(await _outside_unit(_slugs(queryset)), "abcde", "seen from elsewhere")
            _check_equal(await _slugs(queryset.order_by("slug")), "bcdenew", "committed")
            _check_equal((await queryset.get(pk=2)).title, "Changed", "committed")

    async def test_a_refused_change_is_taken_back_alone(self) -> None:
        """A change that raises `Conflict` does not affect the other changes of its unit."""
        async with self.make(ROWS) as queryset:
            async with unit_of_work():
                second = await queryset.get(pk=2)
                with _raises(Conflict):
                    await queryset.create({**NEW, "slug": "a"})
                _check_equal(second.title, "apple", "still readable")
                second = await queryset.update(second, {"title": "Changed"})
                with _raises(Conflict):
                    await queryset.update(second, {"slug": "c"})
                await queryset.create(NEW)
            _check_equal(await _slugs(queryset.order_by("slug")), "abcdenew", "kept")
            _check_equal((await queryset.get(pk=2)).title, "Changed", "kept")

    async def test_changes_of_different_fields_all_stay(self) -> None:
        """Concurrent updates of different fields of an object are all kept."""
        async with self.make(ROWS) as queryset:
            async with unit_of_work():
                obj = await queryset.get(pk=1)
                await _outside_unit(self._retitle(queryset))
                await queryset.update(obj, {"rank": 8})
            obj = await queryset.get(pk=1)
            _check_equal((obj.title, obj.rank), ("Elsewhere", 8), "both")

    async def test_what_is_to_follow_a_commit(self) -> None:
        """Functions passed to ``on_commit`` run after the commit, in their order."""
        async with self.make(ROWS) as queryset:
            calls: list[Any] = []

            async def count() -> None:
                calls.append(await queryset.count())

            async with unit_of_work() as unit:
                unit.on_commit(count)
                unit.on_commit(lambda: calls.append("after"))
                await queryset.create(NEW)
                _check_equal(calls, [], "before the commit")
            _check_equal(calls, [6, "after"], "after the commit")

    async def test_a_unit_that_is_cancelled_keeps_nothing(self) -> None:
        """A unit whose task is cancelled is rolled back."""
        async with self.make(ROWS) as queryset:
            changed, never = asyncio.Event(), asyncio.Event()

            async def work() -> None:
                async with unit_of_work():
                    await self._change(queryset)
                    changed.set()
                    await never.wait()

            task = asyncio.create_task(work())
            await changed.wait()
            task.cancel()
            with _raises(asyncio.CancelledError):
                await task
            _check_equal(await _slugs(queryset), "abcde", "rolled back")

    async def _change(self, queryset: Any) -> None:
        await queryset.create(NEW)
        await queryset.update(await queryset.get(pk=2), {"title": "Changed"})
        await queryset.delete(await queryset.get(pk=1))

    async def _retitle(self, queryset: Any) -> None:
        await queryset.update(await queryset.get(pk=1), {"title": "Elsewhere"})


async def _slugs(queryset: Any) -> str:
    return "".join([obj.slug async for obj in queryset])


def _split_lookup(name: str) -> tuple[str, str]:
    """Splits a lookup into the path of its field and its comparison."""
    path, _, lookup = name.replace("pk", "id").rpartition("__")
    return (path, lookup) if lookup in LOOKUP_NAMES and path else (name.replace("pk", "id"), "exact")


def _others(slugs: str) -> str:
    return "".join(slug for slug in "abcde" if slug not in slugs)


async def _outside_unit(work: Any) -> Any:
    """Awaits ``work`` outside of the current unit of work and returns its result."""
    return await asyncio.create_task(work, context=Context())


def _check_equal(actual: Any, expected: Any, label: Any) -> None:
    if actual != expected:
        raise AssertionError(f"{label}: expected {expected!r}, got {actual!r}")


class _raises:  # lower case, as it is used like a function
    """Checks that its block raises an error, which it appends to the list that it yields."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error
        self._raised: list[Any] = []

    def __enter__(self) -> list[Any]:
        return self._raised

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: object) -> bool:
        if exc is None:
            raise AssertionError(f"expected {self._error.__name__}, but no exception was raised")
        self._raised.append(exc)
        return isinstance(exc, self._error)
