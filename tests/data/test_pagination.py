"""`wsaction.pagination`: pages by number and by offset, and the routes of the next and previous page."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.cards import KINDS, Card, asking, numbered, served, stored
from tests.support.driving import ask
from wsaction.exceptions import ImproperlyConfigured, InvalidParameters, NotFound
from wsaction.generics import CreateAPIActionHandler, ListAPIActionHandler
from wsaction.pagination import BasePagination, LimitOffsetPagination, Page, PageNumberPagination, replace_query
from wsaction.querysets import MemoryQuerySet


def page_fields(page: Page) -> tuple[list[int], str | None, str | None, int | None]:
    return [card.id for card in page.items], page.previous, page.next, page.count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        ("cards/", ([1, 2, 3], None, "cards/?page=2", 8)),
        ("cards/?page=1&x=a+b", ([1, 2, 3], None, "cards/?x=a+b&page=2", 8)),
        ("cards/?page=2", ([4, 5, 6], "cards/", "cards/?page=3", 8)),
        ("cards/?page=3", ([7, 8], "cards/?page=2", None, 8)),
        ("cards/?page=last", ([7, 8], "cards/?page=2", None, 8)),
        ("cards/?page=2&page_size=4", ([5, 6, 7, 8], "cards/?page_size=4", None, 8)),
        ("cards/?page_size=5000", ([*range(1, 7)], None, "cards/?page_size=5000&page=2", 8)),
        ("cards/?page_size=99999999999999999999999", ([*range(1, 7)], None, None, 8)),
        ("?page=2&page_size=2", ([3, 4], "?page_size=2", "?page_size=2&page=3", 8)),
    ],
)
async def test_pages_by_number(kind: str, route: str, wanted: Any) -> None:
    async with stored(kind, numbered(8)) as cards:
        page = await PageNumberPagination(page_size=3, max_page_size=6).paginate_queryset(cards, asking(route))
        items, previous, following, count = page_fields(page)
        assert (items, previous, count) == (wanted[0], wanted[1], wanted[3])
        if "9999" not in route:
            assert following == wanted[2]


@pytest.mark.parametrize("count", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "page", ["4", "0", "-1", "", "x", "1.0", "1_0", "+1", " 1", "٢", "9" * 19, "9" * 400, "9223372036854775807"]
)
async def test_a_missing_page_is_a_404(kind: str, page: str, count: bool) -> None:
    async with stored(kind, numbered(8)) as cards:
        with pytest.raises(NotFound) as raised:
            await PageNumberPagination(page_size=3, count=count).paginate_queryset(cards, asking(f"cards/?page={page}"))
        assert raised.value.errors[0]["loc"] == ["route", "page"]


@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        ("cards/", ([1, 2, 3], None, "cards/?page=2", None)),
        ("cards/?page=2", ([4, 5, 6], "cards/", None, None)),
        ("cards/?page=last", ([4, 5, 6], "cards/", None, None)),
    ],
)
async def test_pages_without_a_count(route: str, wanted: Any) -> None:
    paginator = PageNumberPagination(page_size=3, count=False)
    page = await paginator.paginate_queryset(MemoryQuerySet(type(numbered(1)[0]), rows=numbered(6)), asking(route))
    assert page_fields(page) == wanted
    assert list(paginator.get_paginated_response(page, [])) == ["next", "previous", "results"]


@pytest.mark.parametrize(
    "paginator", [PageNumberPagination(), LimitOffsetPagination(), PageNumberPagination(count=False)]
)
async def test_an_empty_list_has_a_first_page(paginator: Any) -> None:
    async with stored("memory") as cards:
        page = await paginator.paginate_queryset(cards, asking())
        assert page_fields(page) == ([], None, None, 0 if paginator.count else None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [8, None])
@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        ("cards/", ([1, 2, 3], None, "cards/?limit=3&offset=3")),
        ("cards/?limit=2&offset=3", ([4, 5], "cards/?limit=2&offset=1", "cards/?limit=2&offset=5")),
        ("cards/?offset=2", ([3, 4, 5], "cards/?limit=3", "cards/?limit=3&offset=5")),
        ("cards/?offset=5&limit=100", ([6, 7, 8], "cards/?limit=6", None)),
        ("cards/?offset=1000", ([], "cards/?limit=3&offset=997", None)),
    ],
)
async def test_pages_by_offset(kind: str, count: int | None, route: str, wanted: Any) -> None:
    paginator = LimitOffsetPagination(page_size=3, max_limit=6, count=count is not None)
    async with stored(kind, numbered(8)) as cards:
        assert page_fields(await paginator.paginate_queryset(cards, asking(route))) == (*wanted, count)


@pytest.mark.parametrize(
    ("paginator", "route", "loc"),
    [
        (PageNumberPagination(), "?page_size=0", "page_size"),
        (PageNumberPagination(), "?page_size=x", "page_size"),
        (PageNumberPagination(), "?page_size=-1", "page_size"),
        (PageNumberPagination(), "?page_size=", "page_size"),
        (LimitOffsetPagination(), "?limit=0", "limit"),
        (LimitOffsetPagination(), "?offset=-1", "offset"),
        (LimitOffsetPagination(), "?offset=x", "offset"),
        (LimitOffsetPagination(), "?offset=9223372036854775807", "offset"),
        (LimitOffsetPagination(), f"?offset={'9' * 50}", "offset"),
    ],
)
async def test_an_invalid_number_is_refused(paginator: Any, route: str, loc: str) -> None:
    async with stored("memory", numbered(2)) as cards:
        with pytest.raises(InvalidParameters) as raised:
            await paginator.paginate_queryset(cards, asking(route))
        assert [(item["type"], item["loc"]) for item in raised.value.errors] == [("int_parsing", ["route", loc])]


async def test_the_largest_offset_fits_into_64_bits() -> None:
    async with stored("sqlite", numbered(2)) as cards:
        page = await LimitOffsetPagination(max_limit=6).paginate_queryset(cards, asking(f"?offset={2**63 - 8}"))
        assert page.items == []
        with pytest.raises(NotFound):
            await PageNumberPagination(count=False).paginate_queryset(cards, asking(f"?page={2**63 // 100}"))


async def test_the_page_size_may_be_fixed_by_the_server() -> None:
    paginator = PageNumberPagination(page_size=2, page_size_query_param=None)
    assert paginator.parameters == ("page",)
    async with stored("memory", numbered(3)) as cards:
        assert page_fields(await paginator.paginate_queryset(cards, asking("?page_size=1")))[0] == [1, 2]


async def test_a_custom_default_limit() -> None:
    class Short(LimitOffsetPagination):
        default_limit = 2
        max_limit = 3

    async with stored("memory", numbered(5)) as cards:
        for route, wanted in (("", [1, 2]), ("?limit=1", [1]), ("?limit=9", [1, 2, 3])):
            assert page_fields(await Short().paginate_queryset(cards, asking(route)))[0] == wanted


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LimitOffsetPagination(default_limit=0), "LimitOffsetPagination.default_limit is a number of 1 or"),
        (lambda: PageNumberPagination(size=3), "PageNumberPagination has no option 'size'"),
        (lambda: PageNumberPagination(paginate_queryset=3), "no option 'paginate_queryset'"),
        (lambda: LimitOffsetPagination(_offset=3), "no option '_offset'"),
        (lambda: PageNumberPagination(page_size=0), "PageNumberPagination.page_size is a number of 1 or more, not 0"),
        (lambda: PageNumberPagination(page_size="3"), "not '3'"),
    ],
)
def test_misuse_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        call()


async def test_the_base_class_is_abstract() -> None:
    base = BasePagination()
    assert (base.parameters, base.get_page_size(asking())) == ((), 100)
    with pytest.raises(NotImplementedError):
        await base.paginate_queryset(None, asking())


async def test_a_custom_paginator() -> None:
    class Envelope(PageNumberPagination):
        page_size = 2

        def get_paginated_response(self, page: Page, results: Any) -> Any:
            return {"items": results, "more": page.next is not None}

    async with stored("memory", numbered(3)) as cards:
        reply = await ask(served(cards, pagination_class=Envelope), "list", "cards/")
        assert (reply["data"]["more"], [card["id"] for card in reply["data"]["items"]]) == (True, [1, 2])


@pytest.mark.parametrize("wrong", [20, "page", int, object()])
def test_an_invalid_paginator_is_refused(wrong: Any) -> None:
    message = r"Rows: pagination_class is a paginator, as in PageNumberPagination\(page_size=20\), or None, not "
    with pytest.raises(ImproperlyConfigured, match=message):

        class Rows(ListAPIActionHandler):
            pagination_class = wrong

    class Rows(CreateAPIActionHandler):
        queryset = MemoryQuerySet(Card)
        serializer_class = Card
        pagination_class = wrong

    with pytest.raises(ImproperlyConfigured, match=r"^Rows\.pagination_class is a paginator"):
        Rows.as_aaah()


@settings(deadline=None)
@given(
    st.text("abc/<>0", max_size=8),
    st.dictionaries(st.text(min_size=1), st.text(), max_size=4),
    st.integers(0, 99),
)
def test_replacing_a_parameter_keeps_the_rest_of_the_query(path: str, query: dict[str, str], page: int) -> None:
    from urllib.parse import parse_qsl, urlencode

    route = replace_query(f"{path}?{urlencode(query)}", page=page)
    base, _, asked = route.partition("?")
    assert base == path
    assert dict(parse_qsl(asked, keep_blank_values=True)) == {**query, "page": str(page)}
