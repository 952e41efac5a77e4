"""`CursorPagination`: pages that do not shift, and cursors that cannot be changed."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import selectinload

from tests.support import shelves
from tests.support.cards import KINDS, Card, CardRow, asking, numbered, served, stored
from tests.support.driving import ask, talking
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.exceptions import ImproperlyConfigured, InvalidParameters, NotFound
from wsaction.filters import OrderingFilter
from wsaction.limits import Limits
from wsaction.pagination import CursorPagination, conditions_after, iterate_pages, total
from wsaction.querysets import MemoryQuerySet
from wsaction.testing.querysets import ROWS

SECRET = "a secret of the application"


def paginator(size: int = 3, ordering: Any = ("-due", "title"), **options: Any) -> CursorPagination:
    return CursorPagination(page_size=size, ordering=ordering, secret_key=SECRET, **options)


async def walk(cursors: CursorPagination, cards: Any, route: str | None, by: str) -> list[list[int]]:
    """The keys on each page, starting at a route and following ``next`` or ``previous``."""
    pages = []
    while route is not None:
        page = await cursors.paginate_queryset(cards, asking(route))
        pages.append([card.id for card in page.items])
        route = getattr(page, by)
        assert len(pages) < 100
    return pages


cards_of = st.lists(st.tuples(st.none() | st.integers(0, 3), st.sampled_from("aab"), st.booleans()), max_size=14).map(
    lambda values: [Card(id=n, due=due, title=title, done=done) for n, (due, title, done) in enumerate(values, 1)]
)
orders = st.lists(st.sampled_from(["due", "-due", "title", "-title", "done", "-done", "pk", "-pk", "id"]), max_size=3)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=cards_of, ordering=orders, size=st.integers(1, 5))
async def test_pages_cover_the_list_in_both_directions(
    kind: str, rows: list[Card], ordering: list[str], size: int
) -> None:
    cursors = paginator(size, ordering)
    async with stored(kind, rows) as cards:
        wanted = [card.id async for card in cards.order_by(*total(ordering))]
        forwards = await walk(cursors, cards, "cards/", "next")
        assert [key for page in forwards for key in page] == wanted
        assert all(len(page) == size for page in forwards[:-1])
        last = "cards/"
        for _ in forwards[1:]:
            last = (await cursors.paginate_queryset(cards, asking(last))).next or ""
        backwards = await walk(cursors, cards, last, "previous")
        assert [key for page in reversed(backwards) for key in page] == wanted
        parts = [[card.id for card in part] async for part in iterate_pages(lambda: cards, total(ordering), size)]
        assert [key for part in parts for key in part] == wanted


@pytest.mark.parametrize("kind", KINDS)
async def test_concurrent_changes_neither_repeat_nor_hide_rows(kind: str) -> None:
    cursors = paginator(3, "-due")
    async with stored(kind, [Card(id=n, title="t", due=n) for n in range(1, 10)]) as cards:
        first = await cursors.paginate_queryset(cards, asking())
        await cards.create({"title": "new", "due": 100})
        await cards.create({"title": "new", "due": 5})
        await cards.delete(first.items[-1])
        second = await cursors.paginate_queryset(cards, asking(first.next or ""))
        assert ([card.due for card in first.items], [card.due for card in second.items]) == ([9, 8, 7], [6, 5, 5])
        back = await cursors.paginate_queryset(cards, asking(second.previous or ""))
        assert [card.due for card in back.items] == [100, 9, 8]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cursor_before_deleted_rows_gives_an_empty_page(kind: str) -> None:
    cursors = paginator(2, "pk")
    async with stored(kind, numbered(4)) as cards:
        first = await cursors.paginate_queryset(cards, asking())
        second = await cursors.paginate_queryset(cards, asking(first.next or ""))
        for card in second.items:
            await cards.delete(card)
        behind_all = await cursors.paginate_queryset(cards, asking(first.next or ""))
        assert (behind_all.items, behind_all.next) == ([], None)
        before = await cursors.paginate_queryset(cards, asking(behind_all.previous or ""))
        assert ([card.id for card in before.items], before.previous, before.next) == ([1, 2], None, None)
        for card in before.items:
            await cards.delete(card)
        before_all = await cursors.paginate_queryset(cards, asking(second.previous or ""))
        assert (before_all.items, before_all.previous, before_all.next) == ([], None, "cards/")


async def test_links_keep_the_rest_of_the_query_and_may_have_a_count() -> None:
    async with stored("memory", numbered(3)) as cards:
        page = await paginator(2, "pk", count=True).paginate_queryset(cards, asking("cards/?done=false&cursor="[:-8]))
        assert page.count == 3
        assert str(page.next).startswith("cards/?done=false&cursor=")
        assert paginator().parameters == ("cursor",)
        assert (await paginator(2).paginate_queryset(cards, asking())).count is None


# ------------------------------------------------------------------------------------------------- tampering
async def cursor_of(cards: Any, cursors: CursorPagination) -> str:
    return str((await cursors.paginate_queryset(cards, asking())).next).partition("cursor=")[2]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: "x",
        lambda text: "é",
        lambda text: "a" * 1000,
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text[4:],
        lambda text: ("B" if text[0] == "A" else "A") + text[1:],
        lambda text: base64.urlsafe_b64encode(b"\0" * 16 + b"[false,[1]]").decode(),
        lambda text: base64.urlsafe_b64encode(base64.urlsafe_b64decode(text + "==").replace(b"2", b"7")).decode(),
    ],
)
async def test_a_cursor_that_was_changed_is_a_404(spoil: Any) -> None:
    async with stored("memory", numbered(9)) as cards:
        text = await cursor_of(cards, paginator(2, "pk"))
        with pytest.raises(NotFound) as raised:
            await paginator(2, "pk").paginate_queryset(cards, asking(f"cards/?cursor={spoil(text)}"))
        assert raised.value.errors[0]["loc"] == ["route", "cursor"]


async def test_a_cursor_is_valid_for_its_order_and_secret_only() -> None:
    async with stored("memory", numbered(9)) as cards:
        text = await cursor_of(cards, paginator(2, "pk"))
        route = asking(f"cards/?cursor={text}")
        page = await CursorPagination(page_size=4, ordering="pk", secret_key=SECRET).paginate_queryset(cards, route)
        assert [card.id for card in page.items] == [3, 4, 5, 6]
        for other in (paginator(2, "-pk"), CursorPagination(ordering="pk", secret_key=SECRET[::-1])):
            with pytest.raises(NotFound):
                await other.paginate_queryset(cards, route)


@pytest.mark.parametrize("title", ["図" * 255, "\ud800'\"\\", "\u2028é"])
async def test_a_cursor_of_any_text_fits_into_a_route(title: str) -> None:
    cards = MemoryQuerySet(Card, rows=[Card.model_construct(id=n, title=title) for n in range(1, 4)])
    route: str | None = "cards/"
    keys = []
    while route is not None:
        assert len(route) <= Limits().max_route_length
        page = await paginator(1, "title").paginate_queryset(cards, asking(route))
        keys, route = [*keys, *(card.id for card in page.items)], page.next
    assert keys == [1, 2, 3]


async def test_a_cursor_whose_value_no_longer_fits_is_a_404() -> None:
    async with stored("memory", numbered(9)) as cards:
        text = await cursor_of(cards, paginator(2, "title"))
        changed = paginator(2, "title")
        ordered = asking(f"cards/?cursor={text}")

        class Narrowed:
            pk = "id"

            def filter(self, *conditions: Any) -> Any:
                return cards.filter(due__gt="card 1")

        with pytest.raises(NotFound):
            await changed.paginate_queryset(Narrowed(), ordered)


@pytest.mark.parametrize("secret", [None, "", "short", b"a secret of the application"])
def test_a_secret_key_is_required_at_mounting(secret: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r'needs a secret_key .*os.environ\["SECRET_KEY"\]'):
        served(None, get_queryset=lambda self: None, pagination_class=CursorPagination(secret_key=secret))


async def test_the_order_is_checked_at_mounting() -> None:
    async with stored("memory") as cards:
        with pytest.raises(
            ImproperlyConfigured, match=r"CardHandler.pagination_class: .*CursorPagination\(ordering='pk'\)"
        ):
            served(cards, pagination_class=CursorPagination(secret_key=SECRET))
        served(cards, pagination_class=CursorPagination(secret_key=SECRET), ordering="due")


# ------------------------------------------------------------------------------------------------- orders
@pytest.mark.parametrize(
    ("ordering", "wanted"),
    [
        ("-created", ("-created", "pk")),
        ((), ("pk",)),
        (["a", "b", "-a"], ("a", "b", "pk")),
        (["-pk", "title"], ("-pk",)),
        (["title", "-pk"], ("title", "-pk")),
    ],
)
def test_total_adds_the_key_to_an_order(ordering: Any, wanted: Any) -> None:
    assert total(ordering) == wanted


async def test_no_rows_follow_a_null_at_the_end() -> None:
    async with stored("memory", [*numbered(2), Card(id=3, title="c", due=1)]) as cards:
        assert await cards.filter(conditions_after(("due",), [None])).count() == 0
        assert await cards.filter(conditions_after(("-due",), [None])).count() == 1


async def test_ordering_of_the_request_precedes_that_of_the_paginator() -> None:
    async with stored("memory", [Card(id=n, title="t", due=-n) for n in range(1, 5)]) as cards:
        view = served(
            cards, pagination_class=paginator(2, "pk"), filter_backends=[OrderingFilter()], ordering_fields=["due"]
        )
        async with talking(view) as ws:
            plain, by_due = (
                (await ws.call("list", "cards/"))["data"],
                (await ws.call("list", "cards/?ordering=due"))["data"],
            )
            assert list(plain) == ["next", "previous", "results"]
            assert [[card["id"] for card in page["results"]] for page in (plain, by_due)] == [[1, 2], [4, 3]]
            following = (await ws.call("list", by_due["next"]))["data"]
            assert [card["id"] for card in following["results"]] == [2, 1]
            mixed = by_due["next"].replace("ordering=due&", "")
            assert (await ws.call("list", mixed))["status"] == 404


@pytest.mark.parametrize("kind", KINDS)
async def test_pages_continue_after_a_null(kind: str) -> None:
    async with stored(kind, [Card(id=n, title="t", due=None if n % 2 else n) for n in range(1, 6)]) as cards:
        parts = [[card.id for card in part] async for part in iterate_pages(lambda: cards, total("due"), 2)]
        assert parts == [[2, 4], [1, 3], [5]]


@pytest.mark.parametrize("ordering", ["owner", "-owner", "owner__pk", "-owner__name"])
@pytest.mark.parametrize("kind", KINDS)
async def test_pages_ordered_by_a_related_field(kind: str, ordering: str, tmp_path: Path) -> None:
    async with things(kind, tmp_path) as queryset:
        wanted = [card.id async for card in queryset.order_by(ordering)]
        assert [
            card.id async for page in iterate_pages(lambda: queryset, total(ordering), 2) for card in page
        ] == wanted
        pages = await walk(paginator(2, ordering), queryset, "things/", "next")
        assert [key for page in pages for key in page] == wanted


@asynccontextmanager
async def things(kind: str, path: Path) -> AsyncIterator[Any]:
    """Things, some of them without an owner."""
    if kind == "memory":
        yield MemoryQuerySet(shelves.Thing, rows=[shelves.Thing(**row) for row in ROWS])
        return
    async with shelves.sqlite(path, shelves.Base.metadata) as engine:
        sessions = await shelves.fill(engine, shelves.OwnerRow, shelves.ThingRow, ROWS)
        loaded = select(shelves.ThingRow).options(selectinload(shelves.ThingRow.owner))
        yield SQLAlchemyQuerySet(loaded, sessions)


async def test_without_an_order_pages_are_cut_by_number() -> None:
    async with stored("memory", numbered(4)) as cards:
        for size, wanted in [(3, [3, 1]), (2, [2, 2]), (9, [4])]:
            assert [len(part) async for part in iterate_pages(lambda: cards.order_by("-title"), None, size)] == wanted
        assert [part async for part in iterate_pages(lambda: cards.filter(pk=99), None, 2)] == []


async def test_next_links_are_routes_of_list() -> None:
    async with stored("sqlite", numbered(5)) as cards:
        async with talking(served(cards, pagination_class=paginator(2, "-pk"))) as ws:
            pages, route = [], "cards/"
            while route:
                page = (await ws.call("list", route))["data"]
                pages.append([card["id"] for card in page["results"]])
                route = page["next"]
            assert pages == [[5, 4], [3, 2], [1]]
        reply = await ask(served(cards, pagination_class=paginator(2)), "list", "cards/?cursor=abc")
        assert (reply["status"], reply["errors"][0]["loc"]) == (404, ["route", "cursor"])
    assert all(first[-1] > second[0] for first, second in pairwise(pages))


async def test_a_page_size_may_be_requested_by_its_parameter() -> None:
    own = paginator(3, "pk", page_size_query_param="page_size", max_page_size=4)
    assert own.parameters == ("cursor", "page_size")
    async with stored("memory", numbered(9)) as cards:
        for query, size in (("", 3), ("?page_size=2", 2), ("?page_size=99", 4)):
            page = await own.paginate_queryset(cards, asking(f"cards/{query}"))
            assert [card.id for card in page.items] == [*range(1, size + 1)]
            assert page.next is not None
            following = await own.paginate_queryset(cards, asking(page.next))
            assert len(following.items) == min(size, 9 - size)
        with pytest.raises(InvalidParameters):
            await own.paginate_queryset(cards, asking("?page_size=x"))
        page = await paginator(3, "pk").paginate_queryset(cards, asking("?page_size=2"))
        assert len(page.items) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_get_ordering_names_the_order_of_a_queryset(kind: str) -> None:
    async with stored(kind, numbered(3)) as cards:
        assert cards.get_ordering() == ("pk",)
        assert cards.filter(done=False).order_by("-due", "id", "title").get_ordering() == ("-due", "pk", "title")
        assert cards[1:].get_ordering() is None
        assert cards[:1].get_ordering() is None


async def test_get_ordering_is_none_for_ambiguous_orders() -> None:
    class Loose(BaseModel):
        id: Any

    class Parent(BaseModel):
        id: int
        card: Card

    assert MemoryQuerySet(Loose).get_ordering() is None  # keys of several types
    assert MemoryQuerySet(Parent).order_by("card__title").get_ordering() is None
    sessions = async_sessionmaker()
    assert SQLAlchemyQuerySet(select(CardRow), sessions).get_ordering() == ("pk",)
    by_title = SQLAlchemyQuerySet(select(CardRow).order_by(CardRow.title), sessions)
    assert by_title.get_ordering() is None
    assert by_title.order_by("due").get_ordering() == ("due", "pk")
