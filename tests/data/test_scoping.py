"""A queryset that is filtered by the user: no frame of a client reaches another user's row."""

import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.cards import KINDS, Card, served, stored
from tests.support.driving import talking
from wsaction.decorators import async_action
from wsaction.filters import FieldFilter, OrderingFilter, SearchFilter
from wsaction.generics import ModelAPIActionHandler
from wsaction.mixins import Output
from wsaction.pagination import CursorPagination, LimitOffsetPagination, PageNumberPagination
from wsaction.routing import path

MINE, THEIRS = 1, 2
ROWS = [
    Card(id=number, owner_id=MINE if number % 2 else THEIRS, title=("mine" if number % 2 else "theirs"), due=number % 5)
    for number in range(1, 21)
]
PAGINATIONS = [
    PageNumberPagination(page_size=3),
    PageNumberPagination(page_size=3, count=False),
    LimitOffsetPagination(page_size=3),
    CursorPagination(page_size=3, ordering=("-due", "title"), secret_key="of the application"),
    None,
]
FIELDS = {
    "id": ["exact", "in", "gte"],
    "owner_id": ["exact", "in", "isnull", "gt"],
    "title": ["exact", "iexact", "icontains", "startswith"],
    "due": ["exact", "range", "isnull"],
}


class Scoped(ModelAPIActionHandler):
    serializer_class = Card
    filter_backends = (FieldFilter, SearchFilter, OrderingFilter)
    filter_fields = FIELDS
    search_fields = ("title", "=title", "^title")
    ordering_fields = ("owner_id", "title", "due", "id", "pk")

    def get_queryset(self) -> Any:
        return super().get_queryset().filter(owner_id=self.user.pk)


class Below(Scoped):
    """The same rows, below a route that names a card."""

    lookup_url_kwarg = "inner"


def view(cards: Any, **attributes: Any) -> Any:
    below = [path("below/", Below.as_aaah(queryset=cards)), path("below/<inner>/", Below.as_aaah(queryset=cards))]
    return served(cards, bases=(Scoped,), routepatterns=below, **attributes)


def user(pk: int) -> Any:
    return SimpleNamespace(is_authenticated=True, pk=pk)


async def theirs(cards: Any) -> list[dict[str, Any]]:
    return [
        Card.model_validate(card, from_attributes=True).model_dump() async for card in cards.filter(owner_id=THEIRS)
    ]


QUERIES = [
    "",
    "owner_id=2",
    "owner_id__in=1,2",
    "owner_id__gt=0",
    "owner_id__isnull=false",
    "id=2",
    "id__in=1,2,3,4",
    "id__gte=0",
    "title=theirs",
    "title__iexact=THEIRS",
    "title__icontains=e",
    "title__startswith=the",
    "search=theirs",
    "search=e",
    'search="theirs" theirs',
    "due__range=0,9",
    "due__isnull=false",
    "ordering=-owner_id",
    "ordering=-owner_id,-title,pk",
    "ordering=title&search=i",
    "page=2",
    "page=last",
    "page_size=1000",
    "offset=0&limit=1000",
    "offset=9",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pagination", PAGINATIONS, ids=["number", "uncounted", "offset", "cursor", "none"])
async def test_no_list_shows_rows_of_others(kind: str, pagination: Any) -> None:
    async with stored(kind, ROWS) as cards:
        app = view(cards, pagination_class=pagination)
        async with talking(app, user=user(MINE)) as ws:
            seen = set()
            for route in [f"{base}?{query}" for base in ("cards/", "cards/2/below/") for query in QUERIES]:
                for _ in range(10):  # the next pages
                    reply = await ws.call("list", route)
                    assert reply["status"] in (200, 400, 404)
                    assert '"theirs"' not in json.dumps(reply["data"])
                    data = reply["data"] or []
                    seen |= {card["id"] for card in (data["results"] if isinstance(data, dict) else data)}
                    if not isinstance(data, dict) or data["next"] is None:
                        break
                    assert data.get("count", 0) <= 10
                    route = data["next"]
            assert seen == {*range(1, 21, 2)}
            await ws.send_json({"action": "list", "route": "cards/?page_size=2", "stream": True})
            while (reply := await ws.receive_json())["status"] == 206:
                assert {card["owner_id"] for card in reply["data"]} == {MINE}


@pytest.mark.parametrize("kind", KINDS)
async def test_no_key_reaches_rows_of_others(kind: str) -> None:
    async with stored(kind, ROWS) as cards:
        before = await theirs(cards)
        keys: list[Any] = [2, "2", "02", 2.0, [2], {"pk": 2}, {"in": [2]}, None, True, "1 OR 1=1", "2 ", "%", -2, ""]
        actions: list[tuple[str, dict[str, Any]]] = [
            ("retrieve", {}),
            ("update", {"data": {"title": "taken"}}),
            ("partial_update", {"data": {"title": "taken", "owner_id": MINE}}),
            ("destroy", {}),
        ]
        async with talking(view(cards), user=user(MINE)) as ws:
            for action, parameters in actions:
                for key in keys:
                    identifiers = {"pk": key, "id": key, "inner": key, "owner_id": THEIRS, "lookup_field": "title"}
                    for route in (f"cards/{key}/", f"cards/2/below/{key}/", "cards/2/?owner_id=2", "cards/2/?search=t"):
                        reply = await ws.call(action, route, **identifiers, **parameters)
                        if reply["status"] == 200:  # True equals 1, a row of this user
                            assert reply["data"]["owner_id"] == MINE
                            assert key is True
                        else:
                            assert reply["status"] in (400, 404, 204)
                            assert reply["status"] != 204 or key is True
        assert await theirs(cards) == before


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cursor_of_another_user_shows_only_ones_own_rows(kind: str) -> None:
    pagination = PAGINATIONS[3]
    async with stored(kind, ROWS) as cards:
        async with talking(view(cards, pagination_class=pagination), user=user(THEIRS)) as ws:
            following = (await ws.call("list", "cards/"))["data"]["next"]
            previous = (await ws.call("list", following))["data"]["previous"]
        async with talking(view(cards, pagination_class=pagination), user=user(MINE)) as ws:
            for route in (following, previous):
                results = (await ws.call("list", route))["data"]["results"]
                assert {card["owner_id"] for card in results} <= {MINE}


async def test_frames_do_not_narrow_the_queryset_of_the_class() -> None:
    async with stored("memory", ROWS) as cards:
        app = view(cards)
        async with talking(app, user=user(MINE)) as mine, talking(app, user=user(THEIRS)) as yours:
            for _ in range(3):
                assert (await mine.call("list", "cards/?owner_id=1&ordering=-id"))["data"]["count"] == 10
                assert (await yours.call("list", "cards/?title=theirs"))["data"]["count"] == 10
                assert (await yours.call("list", "cards/"))["data"]["results"][0]["id"] == 2
        assert await cards.count() == 20
        assert [card.id async for card in cards[:3]] == [1, 2, 3]


async def test_custom_actions_are_narrowed_too() -> None:
    class Own(Scoped):
        @async_action(detail=True)
        async def finish(self) -> Output:
            return self.serialize(await self.perform_update(await self.get_object(), {"done": True}))

    async with stored("memory", ROWS) as cards, talking(served(cards, bases=(Own,)), user=user(MINE)) as ws:
        assert (await ws.call("finish", "cards/1/"))["data"]["done"] is True
        assert (await ws.call("finish", "cards/2/"))["status"] == 404


names = st.sampled_from(["", "__exact", "__in", "__gt", "__isnull", "__icontains", "__owner_id"]).flatmap(
    lambda lookup: st.sampled_from(["id", "pk", "owner_id", "title", "due", "search", "ordering", "page", "x"]).map(
        lambda name: name + lookup
    )
)
values = st.sampled_from(["1", "2", "theirs", "-owner_id", "owner_id", "true", "null", "", "a,b", "1,2", "%", "last"])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(names, values | st.text(max_size=4)), max_size=4), st.sampled_from(["retrieve", "list"]))
async def test_no_query_shows_rows_of_others(asked: list[tuple[str, str]], action: str) -> None:
    async with stored("memory", ROWS) as cards, talking(view(cards), user=user(MINE)) as ws:
        reply = await ws.call(action, f"cards/{'2/' if action == 'retrieve' else ''}?{urlencode(asked)}")
        assert reply["status"] in (200, 400, 404)
        assert '"theirs"' not in json.dumps(reply["data"])
