"""`wsaction._events.access` as a matrix: the events of each subscriber against the answers of ``retrieve``.

Random schedules change, create and delete rows, also in bursts. Meanwhile users listen, leave, and come back for missed
events. The title of each frame is unique to one version of one row, so that it shows whether this user may ever receive
it. At the end of each step, every client holds the rows that ``retrieve`` gives them.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from sqlalchemy import ForeignKey, delete, select
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from tests.support import shelves
from tests.support.live_boards import position
from tests.support.live_cards import user
from tests.support.schedules import SCHEDULES
from wsaction._events import access as visibility
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.decorators import async_action
from wsaction.exceptions import NotFound
from wsaction.generics import ModelAPIActionHandler
from wsaction.permissions import BasePermission
from wsaction.querysets import MemoryQuerySet, Q
from wsaction.routers import SimpleRouter
from wsaction.routing import path
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import WebSocketSession, connect

ADMIN, USERS = 0, (1, 2)
ORG_OWNERS = {1: 1, 2: 2}
PROJECTS = {1: (1, 1), 2: (2, 2), 3: (2, 1)}  # its owner, its organisation


# ------------------------------------------------------------------------------------------------- in SQL
class Base(DeclarativeBase):
    pass


class Org(Base):
    __tablename__ = "org"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[int]


class Project(Base):
    __tablename__ = "project"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[int]
    org_id: Mapped[int] = mapped_column(ForeignKey("org.id"))
    org: Mapped[Org] = relationship()


class Plain(Base):
    __tablename__ = "plain"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    owner: Mapped[int | None]


class Task(Base):
    """A task whose mapping loads its relation."""

    __tablename__ = "task"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    project_id: Mapped[int | None] = mapped_column(ForeignKey("project.id"))
    project: Mapped[Project | None] = relationship(lazy="joined")


class Deep(Base):
    """A task whose relations are loaded by the ``select()`` of the queryset."""

    __tablename__ = "deep"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    project_id: Mapped[int | None] = mapped_column(ForeignKey("project.id"))
    project: Mapped[Project | None] = relationship()


class Document(Base):
    __tablename__ = "document"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "document", "with_polymorphic": "*"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str]
    reader: Mapped[int | None]


class Letter(Document):
    __mapper_args__ = {"polymorphic_identity": "letter"}

    owner: Mapped[int | None]


class Paper(Base):
    __tablename__ = "paper"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "document"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str]
    reader: Mapped[int | None]


class Mail(Paper):
    __tablename__ = "mail"
    __mapper_args__ = {"polymorphic_identity": "letter", "polymorphic_load": "selectin"}

    id: Mapped[int] = mapped_column(ForeignKey("paper.id"), primary_key=True)
    owner: Mapped[int | None]


# ------------------------------------------------------------------------------------------------- in memory
class OrgData(BaseModel):
    id: int
    owner: int


class ProjectData(BaseModel):
    id: int
    owner: int
    org: OrgData


class PlainData(BaseModel):
    id: int
    title: str
    owner: int | None = None


class TaskData(BaseModel):
    id: int
    title: str
    project: ProjectData | None = None


class DocumentData(BaseModel):
    id: int
    title: str
    kind: str = "document"
    reader: int | None = None


class LetterData(DocumentData):
    owner: int | None = None


LETTERS = (Letter, Mail, LetterData)
MEMORY_MODELS = {
    "plain": PlainData,
    "relation": TaskData,
    "deep": TaskData,
    "single": DocumentData,
    "joined": DocumentData,
}
SQL_MODELS: dict[str, Any] = {"plain": Plain, "relation": Task, "deep": Deep, "single": Document, "joined": Paper}
SHAPES = tuple(MEMORY_MODELS)


class Out(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str


# ------------------------------------------------------------------------------------------------- the rules
class MayRead(BasePermission):
    """Allows the owner of the object, its project or its organisation; an object without an owner is open to all."""

    def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
        return is_of(handler.shape, obj, scope["user"].pk)


def is_of(shape: str, obj: Any, pk: int) -> bool:
    if pk == ADMIN:
        return True
    if shape in ("single", "joined"):
        return not isinstance(obj, LETTERS) or (obj.owner in (None, pk) and obj.reader in (None, pk))
    if shape == "plain":
        return obj.owner in (None, pk)
    return obj.project is None or pk == (obj.project.owner if shape == "relation" else obj.project.org.owner)


SCOPES: dict[str, Callable[[int], Q]] = {
    "plain": lambda pk: Q(owner=pk),
    "relation": lambda pk: Q(project__owner=pk),
    "deep": lambda pk: Q(project__org__owner=pk),
    "single": lambda pk: Q(kind="document") | Q(reader=pk),
    "joined": lambda pk: Q(kind="document") | Q(reader=pk),
}


class Handler(SubscribeMixin, ModelAPIActionHandler):
    serializer_class = Out
    shape = ""

    @async_action(detail=False)
    async def change(self, key: int, values: dict[str, Any]) -> None:
        await self.perform_update(await self.get_queryset().get(pk=key), stored(self.queryset, values))

    @async_action(detail=False)
    async def make(self, values: dict[str, Any]) -> None:
        await self.perform_create(stored(self.queryset, values))

    @async_action(detail=False)
    async def drop(self, key: int) -> None:
        await self.perform_destroy(await self.get_queryset().get(pk=key))

    @async_action(detail=False)
    async def mark(self) -> None:
        await self.publish("mark")


class ByPermission(Handler):
    permission_classes = (MayRead,)


class Scoped(Handler):
    def get_queryset(self) -> Any:
        rows = super().get_queryset()
        return rows if self.user.pk == ADMIN else rows.filter(SCOPES[self.shape](self.user.pk))


class ScopedByBackend:
    def parameters(self, handler: Any) -> tuple[str, ...]:
        return ()

    def check(self, handler: Any) -> None: ...

    def filter_queryset(self, queryset: Any, handler: Any) -> Any:
        return queryset if handler.user.pk == ADMIN else queryset.filter(SCOPES[handler.shape](handler.user.pk))


class ByBackend(Handler):
    filter_backends = (ScopedByBackend,)


class ByGetObject(Handler):
    async def get_object(self) -> Any:
        obj = await super().get_object()
        if not is_of(self.shape, obj, self.user.pk):
            raise NotFound
        return obj


RULES = {"permission": ByPermission, "scope": Scoped, "backend": ByBackend, "get_object": ByGetObject}


def may_see(shape: str, rule: str, pk: int, row: dict[str, Any]) -> bool:
    """The rule again, computed from plain values: the expectation for each version of a row."""
    if shape in ("single", "joined"):
        if row["kind"] == "document":
            return True
        if rule in ("scope", "backend"):
            return bool(row["reader"] == pk)
        return row["owner"] in (None, pk) and row["reader"] in (None, pk)
    owner = row.get("owner")
    if shape in ("relation", "deep"):
        project = row["project_id"]
        org = None if project is None else ORG_OWNERS[PROJECTS[project][1]]
        owner = org if shape == "deep" or project is None else PROJECTS[project][0]
    return bool(owner == pk or (owner is None and rule in ("permission", "get_object")))


def stored(queryset: Any, values: dict[str, Any]) -> dict[str, Any]:
    if issubclass(queryset.model, BaseModel) and "project_id" in values:
        project = values.pop("project_id")
        values["project"] = None if project is None else project_data(project)
    return values


def project_data(pk: int) -> ProjectData:
    owner, org = PROJECTS[pk]
    return ProjectData(id=pk, owner=owner, org=OrgData(id=org, owner=ORG_OWNERS[org]))


# ------------------------------------------------------------------------------------------------- the simulation
@asynccontextmanager
async def database(store: str, folder: Path) -> AsyncIterator[Any]:
    if store == "memory":
        yield None
        return
    async with (
        shelves.sqlite(folder, Base.metadata) if store == "sqlite" else shelves.postgres(Base.metadata) as engine
    ):
        if engine is None:
            pytest.skip(f"no PostgreSQL answers at {shelves.POSTGRES}; set WSACTION_TEST_POSTGRES_URL")
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        async with sessions.begin() as session:
            session.add_all([Org(id=pk, owner=owner) for pk, owner in ORG_OWNERS.items()])
            await session.flush()
            session.add_all([Project(id=pk, owner=owner, org_id=org) for pk, (owner, org) in PROJECTS.items()])
        yield sessions


def values_of(shape: str, rng: random.Random) -> dict[str, Any]:
    """The values that decide who may see a row."""
    if shape in ("single", "joined"):
        return {"reader": rng.choice((None, 1, 2))}
    if shape == "plain":
        return {"owner": rng.choice((None, 1, 2))}
    return {"project_id": rng.choice((None, *PROJECTS))}


async def queryset_of(store: str, shape: str, sessions: Any, rows: dict[int, dict[str, Any]]) -> Any:
    if store == "memory":
        kinds = {"document": MEMORY_MODELS[shape], "letter": LetterData}
        made = []
        for pk, row in rows.items():
            values = stored(MemoryQuerySet(PlainData), dict(row))
            made.append(kinds[row.get("kind", "document")](id=pk, **values))
        return MemoryQuerySet(MEMORY_MODELS[shape], rows=made)
    kinds = {"document": SQL_MODELS[shape], "letter": Letter if shape == "single" else Mail}
    async with sessions.begin() as session:
        for kind in {*kinds.values()} if shape in ("single", "joined") else {SQL_MODELS[shape]}:
            if kind.__table__ is not SQL_MODELS[shape].__table__:
                await session.execute(delete(kind.__table__))
        await session.execute(delete(SQL_MODELS[shape].__table__))
        for pk, row in rows.items():
            columns = {name: value for name, value in row.items() if name != "kind"}
            session.add(kinds[row.get("kind", "document")](id=pk, **columns))
    if shape == "deep":
        return SQLAlchemyQuerySet(select(Deep).options(selectinload(Deep.project).selectinload(Project.org)), sessions)
    return SQLAlchemyQuerySet(SQL_MODELS[shape], sessions)


class MinimalQuerySet:
    """A custom queryset: it has the methods of the protocol and none of the extras of wsaction's querysets."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.model, self.pk = inner, inner.model, inner.pk

    def filter(self, *conditions: Any, **lookups: Any) -> Any:
        return MinimalQuerySet(self._inner.filter(*conditions, **lookups))

    def order_by(self, *fields: str) -> Any:
        return MinimalQuerySet(self._inner.order_by(*fields))

    def __getitem__(self, wanted: slice) -> Any:
        return MinimalQuerySet(self._inner[wanted])

    def __aiter__(self) -> Any:
        return aiter(self._inner)

    def __getattr__(self, name: str) -> Any:
        if name in ("get", "create", "update", "delete", "count", "exists", "first"):
            return getattr(self._inner, name)
        raise AttributeError(name)


class Client:
    """A client of one user, which applies events as README says."""

    def __init__(self, world: "World", ws: WebSocketSession, pk: int) -> None:
        self.world, self.ws, self.pk = world, ws, pk
        self.held: dict[int, str] = {}
        self.at: Any = None
        self.seen: list[Any] = []

    async def load(self) -> None:
        self.held = {}
        for key in self.world.keys:
            reply = await self.ws.call("retrieve", f"items/{key}/")
            assert reply["status"] in (200, 403, 404)
            if reply["status"] == 200:
                self.held[key] = reply["data"]["title"]

    async def catch_up(self) -> None:
        while (event := await self.ws.event())["event"] != "mark":
            self.seen.append(event)
            data = event["data"]
            if event["event"] == "$resync":
                await self.load()
            elif event["event"] == "deleted":
                assert data == {"pk": data["pk"]}
                self.held.pop(data["pk"], None)
            elif event["event"] != "$position":
                assert event["event"] in ("created", "updated")
                self.held[data["id"]] = data["title"]
        self.at["offset"] = event["offset"]

    async def leave(self) -> None:
        await self.ws.call("unsubscribe", "items/")

    async def come_back(self) -> None:
        self.at = await position(self.ws, "items/", since={"epoch": self.at["epoch"], "offset": self.at["offset"]})
        if not self.at["recovered"]:
            await self.load()


class World:
    """Rows, an app, the admin who changes the rows, and two subscribers."""

    def __init__(self, shape: str, rule: str, seed: int) -> None:
        self.shape, self.rule, self.rng = shape, rule, random.Random(seed)
        self.versions: dict[str, set[int]] = {}  # the title of each version -> the users who may see it
        self.rows: dict[int, dict[str, Any]] = {}
        self.keys: list[int] = []
        for pk in range(1, 5):
            row = {"title": self.title(), **values_of(shape, self.rng)}
            if shape in ("single", "joined"):
                row["kind"] = self.rng.choice(("letter", "letter", "document"))
                if row["kind"] == "letter":
                    row["owner"] = self.rng.choice((None, 1, 2))
            self.note(pk, row)

    def title(self) -> str:
        return f"t{self.rng.getrandbits(40)}x"

    def note(self, pk: int, row: dict[str, Any]) -> None:
        self.rows[pk] = row
        if pk not in self.keys:
            self.keys.append(pk)
        self.versions[row["title"]] = {one for one in USERS if may_see(self.shape, self.rule, one, row)}

    def change(self) -> dict[str, Any]:
        """One change, as a frame that the admin sends."""
        operation = self.rng.choice(("change", "change", "change", "change", "make", "drop"))
        if operation == "make" or not self.rows:
            values = {"title": self.title(), **values_of(self.shape, self.rng)}
            kind = {"kind": "document"} if self.shape in ("single", "joined") else {}
            self.note(len(self.keys) + 1, {**values, **kind})
            return {"action": "make", "values": {**values, "id": len(self.keys)}}
        pk = self.rng.choice(list(self.rows))
        if operation == "drop":
            del self.rows[pk]
            return {"action": "drop", "key": pk}
        changes = {"title": self.title()}
        if self.rng.random() < 0.6:
            changes |= values_of(self.shape, self.rng)
        self.note(pk, {**self.rows[pk], **changes})
        return {"action": "change", "key": pk, "values": changes}

    async def run(self, queryset: Any, steps: int = 5) -> int:
        """Runs a schedule; returns how many events showed an object to a user."""
        handler = type("Items", (RULES[self.rule],), {"queryset": queryset, "shape": self.shape})
        router = SimpleRouter()
        router.register("items", handler, basename="item")
        root: Any = type("Root", (AsyncAPIConsumer,), {"routepatterns": router.urls})
        app = WSAction([path("ws/", root.as_asgi())])
        async with (
            app.lifespan(),
            connect(app, "/ws/", user=user(ADMIN)) as admin,
            connect(app, "/ws/", user=user(1)) as one,
            connect(app, "/ws/", user=user(2)) as two,
        ):
            clients = [Client(self, one, 1), Client(self, two, 2)]
            for client in clients:
                client.at = await position(client.ws, "items/", snapshot=True)
                listed = {row["id"]: row["title"] for row in client.at.pop("snapshot")["results"]}
                await client.load()
                if self.rule in ("scope", "backend"):  # `list` asks no object permissions
                    assert listed == client.held
            for _ in range(steps):
                away = clients[0] if self.rng.random() < 0.3 else None
                if away is not None:
                    await away.leave()
                count = self.rng.choice((1, 1, 2, 4))
                for number in range(count):
                    await admin.send_json({**self.change(), "route": "items/", "request_id": number})
                for _ in range(count):
                    reply = await admin.receive_json()
                    assert reply["status"] == 200, reply
                if away is not None:
                    await away.come_back()
                await admin.call("mark", "items/")
                for client in clients:
                    await client.catch_up()
                    from_events = dict(client.held)
                    await client.load()
                    assert from_events == client.held, (client.pk, client.seen[-6:])
                    assert client.held.keys() == {
                        key for key, row in self.rows.items() if client.pk in self.versions[row["title"]]
                    }
            for client in clients:
                for title in re.findall(r"t\d+x", str(client.seen)):
                    assert client.pk in self.versions[title], (client.pk, title)
            return sum(event["event"] in ("created", "updated") for client in clients for event in client.seen)


async def schedules(store: str, shape: str, rule: str, seeds: range, folder: Path, wrap: Any = None) -> int:
    shown = 0
    async with database(store, folder) as sessions:
        for seed in seeds:
            world = World(shape, rule, seed)
            queryset = await queryset_of(store, shape, sessions, world.rows)
            try:
                shown += await world.run(queryset if wrap is None else wrap(queryset))
            except AssertionError as exc:
                exc.add_note(f"seed {seed} of {store}, {shape}, {rule}")
                raise
    return shown


STORES = ("memory", "sqlite", "postgres")


@pytest.mark.parametrize(
    ("shape", "rule"),
    [
        *((shape, rule) for shape in SHAPES for rule in ("permission", "scope")),
        ("relation", "backend"),
        ("deep", "get_object"),
    ],
)
@pytest.mark.parametrize("store", ["memory", *(pytest.param(one, marks=pytest.mark.slow) for one in STORES[1:])])
async def test_events_show_the_same_as_retrieve(store: str, shape: str, rule: str, tmp_path: Path) -> None:
    assert await schedules(store, shape, rule, range(2), tmp_path) > 0


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"])
async def test_events_show_the_same_as_retrieve_in_many_schedules(
    store: str, shape: str, rule: str, tmp_path: Path
) -> None:
    assert await schedules(store, shape, rule, range(1_000, 1_000 + SCHEDULES // 200), tmp_path) > 0


@pytest.mark.parametrize("rule", ["permission", "scope"])
@pytest.mark.parametrize("store", [pytest.param("memory", marks=pytest.mark.slow), "sqlite"])
async def test_a_custom_queryset_shows_the_same_as_retrieve(store: str, rule: str, tmp_path: Path) -> None:
    assert await schedules(store, "relation", rule, range(2), tmp_path, MinimalQuerySet) > 0


# ------------------------------------------------------------------------------------------------- the matrix itself
@pytest.mark.parametrize("shape", ["relation", "single"])
async def test_the_matrix_fails_if_permissions_see_a_stand_in(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sees(self: Any) -> Any:
        after = self._subject["after"]
        if after is None:
            return False
        values = {**after["text"], **after["exact"]}
        return await self._may_see(SimpleNamespace(project=None, **values))

    monkeypatch.setattr(visibility._View, "sees", sees)
    with pytest.raises(AssertionError):
        await schedules("sqlite", shape, "permission", range(3), tmp_path)


@pytest.mark.parametrize("compares", [True, False])
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_check_of_a_newer_row_does_not_release_older_data(
    store: str, compares: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is read for the first event after the commit of the second change; ``compares`` notices that."""
    gate = asyncio.Event()

    class GatedScope:
        """A scope that only the store can decide; it answers once the gate is open."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        async def get(self, **lookups: Any) -> Any:
            await gate.wait()
            return await self._inner.get(**lookups)

    class Items(Handler):
        def get_queryset(self) -> Any:
            rows = super().get_queryset()
            return rows if self.user.pk == ADMIN else GatedScope(rows.filter(owner=self.user.pk))

    if not compares:
        monkeypatch.setattr(visibility, "_is_unchanged", lambda *args: True)
    async with database(store, tmp_path) as sessions:
        queryset = await queryset_of(store, "plain", sessions, {1: {"title": "old", "owner": 1}})
        router = SimpleRouter()
        router.register("items", Items, basename="item")
        Items.queryset = queryset
        root: Any = type("Root", (AsyncAPIConsumer,), {"routepatterns": router.urls})
        app = WSAction([path("ws/", root.as_asgi())])
        async with (
            app.lifespan(),
            connect(app, "/ws/", user=user(ADMIN)) as admin,
            connect(app, "/ws/", user=user(1)) as one,
        ):
            await position(one, "items/")
            for title, owner in (("secret", 2), ("new", 1)):
                values = {"title": title, "owner": owner}
                assert (await admin.call("change", "items/", key=1, values=values))["status"] == 200
            gate.set()
            first, second = await one.event(), await one.event()
            assert first["event"] == ("$resync" if compares else "updated")
            assert ("secret" in str(first)) is not compares
            assert (second["event"], second["data"]) == ("updated", {"id": 1, "title": "new"})
