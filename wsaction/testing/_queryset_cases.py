"""Rows for the tests of querysets, with lookups and orders and their expected results."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from wsaction.querysets._lookups import Q

_ADA, _NOBODY = {"id": 1, "name": "Ada"}, {"id": 2, "name": None}
_FIELDS = ("id", "slug", "title", "rank", "done", "due", "board", "position", "owner")
_VALUES = (
    (1, "a", "Apple pie", 3, True, date(2026, 3, 1), 1, 1, _ADA),
    (2, "b", "apple", None, False, None, 1, 2, None),
    (3, "c", "100% _sure_", 1, False, date(2026, 1, 1), 2, 1, _NOBODY),
    (4, "d", "back\\slash", 3, True, date(2026, 2, 1), None, 1, _ADA),
    (5, "e", "", -1, False, None, None, 1, None),
)
ROWS: Sequence[Mapping[str, Any]] = tuple(dict(zip(_FIELDS, values, strict=True)) for values in _VALUES)
"""The rows of the tests. ``id`` is an auto-incrementing integer key. ``slug`` is unique; so are ``board`` and
``position`` together. ``rank``, ``due`` (a date), ``board``, ``owner`` and the owner's ``name`` may be null."""

NEW: Mapping[str, Any] = {"slug": "new", "title": "New", "done": False, "position": 9}
"""A row to create, without its key."""

# changes to `NEW` that violate a unique constraint, and its fields
CONFLICTS: Sequence[tuple[Mapping[str, Any], list[str]]] = (
    ({"slug": "a"}, ["slug"]),
    ({"slug": "x", "board": 1, "position": 2}, ["board", "position"]),
    ({"slug": "x", "id": 1}, ["id"]),
)

# filters, and the slugs of the rows that they match
LOOKUPS: Sequence[tuple[Q, str]] = (
    (Q(), "abcde"),
    (Q(pk="3"), "c"),
    (Q(id=3.0), "c"),
    (Q(slug__exact="a"), "a"),
    (Q(rank=3, done="true"), "ad"),
    (Q(title="apple"), "b"),
    (Q(title__iexact="APPLE"), "b"),
    (Q(title__iexact="100% _SURE_"), "c"),
    (Q(title__contains="pp"), "ab"),
    (Q(title__contains="App"), "a"),
    (Q(title__icontains="aPP"), "ab"),
    (Q(title__icontains=""), "abcde"),
    (Q(title__contains=""), "abcde"),
    (Q(title__contains="%"), "c"),
    (Q(title__icontains="_"), "c"),
    (Q(title__icontains="\\"), "d"),
    (Q(title__startswith="a"), "b"),
    (Q(title__startswith="100%"), "c"),
    (Q(title__startswith="_"), ""),
    (Q(title__endswith="e"), "ab"),
    (Q(title__endswith="E"), ""),
    (Q(title__endswith="a longer text than there is"), ""),
    (Q(title=""), "e"),
    (Q(slug__in=["a", "e", "z", "a"]), "ae"),
    (Q(rank__in=["1", None]), "c"),
    (Q(rank__in=[]), ""),
    (~Q(rank__in=[]), "abcde"),
    (Q(rank__lt=3), "ce"),
    (Q(rank__lte=3), "acde"),
    (Q(rank__gt="1"), "ad"),
    (Q(rank__gte=1), "acd"),
    (Q(rank__range=(1, 3)), "acd"),
    (Q(rank__range=(3, 1)), ""),
    (Q(due__lt="2026-02-15"), "cd"),
    (Q(due__range=[date(2026, 2, 1), "2026-03-01"]), "ad"),
    (Q(slug__gt="b", slug__lt="e"), "cd"),
    (Q(done__lt=True), "bce"),
    (Q(done__lte=False), "bce"),
    (Q(done__gt="false"), "ad"),
    (Q(done__gte=True), "ad"),
    (Q(done__range=(False, True)), "abcde"),
    (Q(done__in=[True]), "ad"),
    (~Q(done__gt=False), "bce"),
    (Q(rank=None), "b"),
    (Q(rank__isnull=True), "b"),
    (Q(rank__isnull="false"), "acde"),
    (~Q(rank=3), "bce"),
    (~Q(rank__gt=1), "bce"),
    (~Q(rank=None), "acde"),
    (~~Q(rank=3), "ad"),
    (~Q(), "abcde"),
    (Q(rank=3) & Q(done=True) & ~Q(slug="a"), "d"),
    (Q(rank=1) | Q(slug="b") | Q(due=None), "bce"),
    (~(Q(rank=1) | Q(slug="b")), "ade"),
    (~Q(Q(rank=3) | Q(rank__isnull=True), done=True), "bce"),
    (Q() | Q(slug="a"), "a"),
    (Q(owner__name="Ada"), "ad"),
    (Q(owner__name__icontains="D", owner__id=1), "ad"),
    (Q(owner__pk="2"), "c"),
    (Q(owner=1), "ad"),
    (~Q(owner__name="Ada"), "bce"),
    (~Q(owner__id__gt=1), "abde"),
    (Q(owner__name=None), "bce"),
    (Q(owner__name__isnull=False), "ad"),
    (Q(owner__isnull=True), "be"),
    (Q(owner=None) | Q(owner__name="Ada"), "abde"),
)

# arguments of `order_by()`, and the slugs in the expected order
ORDERS: Sequence[tuple[Sequence[str], str]] = (
    ((), "abcde"),
    (("-pk",), "edcba"),
    (("rank",), "ecadb"),
    (("-rank",), "badce"),
    (("rank", "-slug"), "ecdab"),
    (("-due", "slug"), "beadc"),
    (("done", "-rank"), "bcead"),
    (("-owner__name", "id"), "bcead"),
    (("owner__name", "-id"), "daecb"),
)

# lookups, each with an invalid value
INVALID_LOOKUPS: Sequence[tuple[str, Any]] = (
    ("rank", "x"),
    ("rank__in", "12"),
    ("rank__in", ["x"]),
    ("rank__in", 1),
    ("rank__lt", None),
    ("rank__range", [1]),
    ("rank__range", (None, 1)),
    ("rank__isnull", "x"),
    ("due", "soon"),
    ("title__icontains", 5),
    ("owner__pk", "x"),
)

# lookups that match no row
MISSING: Sequence[Mapping[str, Any]] = (
    {"pk": 99},
    {"pk": "x"},
    {"pk": []},
    {"pk": 10**40},
    {"slug": "a", "pk": 2},
    {"due": "x"},
)
