"""`wsaction.filters`: clients can filter, search and order by the listed fields, and by nothing else."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from tests.support.cards import KINDS, Card, asking, served, stored
from tests.support.driving import ask, talking
from wsaction.exceptions import ImproperlyConfigured, InvalidParameters
from wsaction.filters import BaseFilterBackend, FieldFilter, OrderingFilter, SearchFilter, check_query
from wsaction.querysets import MemoryQuerySet

ROWS = [
    Card(id=1, title="Buy milk", due=3, done=True),
    Card(id=2, title="Milk the cow", due=1, owner_id=2),
    Card(id=3, title="milk", due=None),
    Card(id=4, title="100% oat_milk", due=2, done=True, owner_id=2),
    Card(id=5, title="bread, butter", due=2),
]


async def found(queryset: Any) -> list[int]:
    return [card.id async for card in queryset]


def refused(call: Any, *args: Any) -> list[tuple[str, list[Any]]]:
    with pytest.raises(InvalidParameters) as raised:
        call(*args)
    return [(item["type"], item["loc"]) for item in raised.value.errors]


# ------------------------------------------------------------------------------------------------- fields
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", [1, 2, 3, 4, 5]),
        ("done=true", [1, 4]),
        ("done=0&owner_id=2", [2]),
        ("due__gte=2", [1, 4, 5]),
        ("due__in=1,3", [1, 2]),
        ("due__range=1,2", [2, 4, 5]),
        ("due__isnull=true", [3]),
        ("title__icontains=oat_", [4]),
        ("title__icontains=%25", [4]),
        ("title=milk", [3]),
        ("title=", []),
        ("secret=true", [1, 2, 3, 4, 5]),
    ],
)
async def test_filtering_by_fields(kind: str, query: str, wanted: list[int]) -> None:
    fields = {
        "done": ["exact"],
        "owner_id": ["exact"],
        "due": ["gte", "in", "range", "isnull"],
        "title": ["exact", "icontains"],
    }
    async with stored(kind, ROWS) as cards:
        assert await found(FieldFilter().filter_queryset(cards, asking(f"?{query}", filter_fields=fields))) == wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "query", ["due=x", "due=", "due=1.5", "done=perhaps", "due__in=1,x", "due__range=1", "due__isnull=x"]
)
async def test_an_invalid_value_is_an_error_with_its_location(kind: str, query: str) -> None:
    fields = {"due": ["exact", "in", "range", "isnull"], "done": ["exact"]}
    async with stored(kind, ROWS) as cards:
        handler = asking(f"?{query}", filter_fields=fields)
        assert refused(FieldFilter().filter_queryset, cards, handler) == [
            ("value_error", ["route", query.partition("=")[0]])
        ]


def test_parameters_are_those_that_are_declared() -> None:
    assert FieldFilter().parameters(asking(filter_fields=("done", "owner_id"))) == ("done", "owner_id")
    assert FieldFilter().parameters(asking(filter_fields="done")) == ("done",)
    assert FieldFilter().parameters(asking(filter_fields={"due": ["exact", "lt"]})) == ("due", "due__lt")
    assert SearchFilter().parameters(asking()) == ("search",)
    assert OrderingFilter().parameters(asking()) == ("ordering",)
    assert BaseFilterBackend().parameters(asking()) == ()


# ------------------------------------------------------------------------------------------------- search
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fields", "search", "wanted"),
    [
        (("title",), "", [1, 2, 3, 4, 5]),
        (("title",), "MILK", [1, 2, 3, 4]),
        (("title",), "milk cow", [2]),
        (("title",), "milk,cow", [2]),
        (("title",), '"the cow"', [2]),
        (("title",), '"cow the"', []),
        (("title",), "%25 _", [4]),
        (("^title",), "Milk", [2]),
        (("=title",), "MILK", [3]),
        (("=title", "^title"), "Milk", [2, 3]),
    ],
)
async def test_searching_for_words(kind: str, fields: Any, search: str, wanted: list[int]) -> None:
    async with stored(kind, ROWS) as cards:
        handler = asking(f"?search={search}", search_fields=fields)
        assert await found(SearchFilter().filter_queryset(cards, handler)) == wanted


async def test_the_number_of_search_words_is_bounded() -> None:
    async with stored("memory", ROWS) as cards:
        handler = asking(f"?search={'+'.join('a' * 17)}", search_fields=["title"])
        assert refused(SearchFilter().filter_queryset, cards, handler) == [("too_long", ["route", "search"])]


# ------------------------------------------------------------------------------------------------- order
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("query", "default", "wanted"),
    [
        ("", (), [1, 2, 3, 4, 5]),
        ("", "-due", [3, 1, 4, 5, 2]),
        ("", ("-due", "-id"), [3, 1, 5, 4, 2]),
        ("ordering=due", "-due", [2, 4, 5, 1, 3]),
        ("ordering=-due,-title", (), [3, 1, 5, 4, 2]),
        ("ordering=done, due", (), [2, 5, 3, 4, 1]),
        ("ordering=", "-due", [3, 1, 4, 5, 2]),
        ("ordering=,", (), [1, 2, 3, 4, 5]),
    ],
)
async def test_ordering_by_fields(kind: str, query: str, default: Any, wanted: list[int]) -> None:
    async with stored(kind, ROWS) as cards:
        handler = asking(f"?{query}", ordering_fields=("due", "title", "done"), ordering=default)
        assert await found(OrderingFilter().filter_queryset(cards, handler)) == wanted


@pytest.mark.parametrize(
    "ordering", ["owner_id", "-owner_id", "due,id", "--due", "due__lt", "owner__password", "?", "'"]
)
def test_an_undeclared_order_is_refused(ordering: str) -> None:
    handler = asking(f"?ordering={ordering}", ordering_fields=("due", "title"), ordering=())
    with pytest.raises(InvalidParameters) as raised:
        OrderingFilter().get_ordering(handler)
    assert raised.value.errors == [
        {
            "type": "literal_error",
            "msg": "This list can be ordered by due, title.",
            "loc": ["route", "ordering"],
            "ctx": {"allowed": ["due", "title"]},
        }
    ]


def test_repeated_order_fields_count_once() -> None:
    handler = asking("?ordering=-due, due,title,-due,title", ordering_fields=("due", "title"), ordering=())
    assert OrderingFilter().get_ordering(handler) == ("-due", "title")


def test_without_ordering_fields_every_order_is_refused() -> None:
    handler = asking("?ordering=id", ordering_fields=(), ordering=())
    assert refused(OrderingFilter().get_ordering, handler) == [("literal_error", ["route", "ordering"])]


# ------------------------------------------------------------------------------------------------- what nothing reads
@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ([("dnoe", "true")], "extra_forbidden"),
        ([("done", "1"), ("done", "0")], "value_error"),
        ([("done", "a\0b")], "value_error"),
    ],
)
def test_unknown_repeated_and_invalid_parameters_are_refused(asked: Any, error: str) -> None:
    assert refused(check_query, asked, ["done"]) == [(error, ["route", asked[0][0]])]
    check_query([("done", "true")], ["done"])


async def test_a_custom_backend_in_a_handler() -> None:
    class Mine(BaseFilterBackend):
        def parameters(self, handler: Any) -> Any:
            return ("mine",)

        def filter_queryset(self, queryset: Any, handler: Any) -> Any:
            return queryset.filter(owner_id=2) if "mine" in handler.query_params else queryset

    async with stored("memory", ROWS) as cards:
        view = served(
            cards, filter_backends=(Mine, FieldFilter()), filter_fields=("done",), query_parameters=("verbose",)
        )
        async with talking(view) as ws:
            ids = [card["id"] for card in (await ws.call("list", "cards/?mine&done=true&verbose=1"))["data"]["results"]]
            assert ids == [4]
            assert (await ws.call("retrieve", "cards/4/?mine"))["status"] == 200
            assert (await ws.call("retrieve", "cards/1/?mine"))["status"] == 404
            assert (await ws.call("destroy", "cards/1/?mine"))["status"] == 404
            for action, route in [("list", "cards/?owner_id=1"), ("retrieve", "cards/1/?owner_id=1")]:
                reply = await ws.call(action, route)
                assert (reply["status"], reply["errors"][0]["type"]) == (400, "extra_forbidden")
                assert reply["errors"][0]["ctx"] == {"allowed": ["mine", "done", "page", "page_size", "verbose"]}
        assert (await ask(served(cards, pagination_class=None), "list", "cards/?page=2"))["status"] == 400


def test_the_base_backend_is_abstract() -> None:
    with pytest.raises(NotImplementedError):
        BaseFilterBackend().filter_queryset(None, asking())


@pytest.mark.parametrize(
    ("backend", "attributes", "message"),
    [
        (FieldFilter, {}, r"CardHandler has a FieldFilter and lists no fields .* filter_fields = \('done',\)"),
        (
            FieldFilter,
            {"filter_fields": {"due": ["less"]}},
            "CardHandler.filter_fields: .* the unknown lookup 'less'; there are",
        ),
        (FieldFilter, {"filter_fields": ("dnoe",)}, "CardHandler.filter_fields: .*did you mean 'done'"),
        (FieldFilter, {"filter_fields": {"due": ["icontains"]}}, "CardHandler.filter_fields: .*is not a text field"),
        (SearchFilter, {}, r"has a SearchFilter .* search_fields = \('title',\)"),
        (SearchFilter, {"search_fields": "title"}, "has a SearchFilter"),
        (SearchFilter, {"search_fields": ("@title", "$title")}, "search_fields: @title, \\$title: a field begins with"),
        (SearchFilter, {"search_fields": ("due",)}, "CardHandler.search_fields: .*is not a text field"),
        (OrderingFilter, {"ordering_fields": "due"}, r"ordering_fields takes names, as in \('due',\), not a string"),
        (OrderingFilter, {"ordering_fields": ("deu",)}, "CardHandler.ordering_fields: .*did you mean 'due'"),
        (OrderingFilter, {"ordering": "-deu"}, "CardHandler.ordering: .*did you mean 'due'"),
    ],
)
def test_invalid_declarations_are_refused_at_mounting(backend: Any, attributes: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        served(MemoryQuerySet(Card), filter_backends=(backend,), **attributes)


def test_any_key_type_may_be_declared_as_a_filter() -> None:
    class Keyed(BaseModel):
        id: UUID

    served(MemoryQuerySet(Keyed), filter_backends=(FieldFilter,), filter_fields={"id": ["exact", "in"]})


def test_fields_of_get_queryset_are_not_checked_at_mounting() -> None:
    served(None, get_queryset=lambda self: None, filter_backends=(FieldFilter,), filter_fields=("anything",))


@pytest.mark.parametrize("backends", ["FieldFilter", FieldFilter, {FieldFilter}])
def test_filter_backends_must_be_a_sequence(backends: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"filter_backends must be a sequence, as in \(SearchFilter,\)"):
        served(MemoryQuerySet(Card), filter_backends=backends)
