"""An event's permission is asked about the object that the recipient would load; otherwise the event shows nothing."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
import sqlalchemy
from pydantic import BaseModel
from sqlalchemy import JSON, ForeignKey, LargeBinary, String, event, select
from sqlalchemy.ext.asyncio import AsyncAttrs, async_sessionmaker, create_async_engine
from sqlalchemy.orm import (
    ColumnProperty,
    DeclarativeBase,
    Mapped,
    Session,
    column_property,
    mapped_column,
    relationship,
    selectinload,
    with_loader_criteria,
)

from tests.support import shelves
from tests.support.cards import Card
from tests.support.live_boards import position
from tests.support.live_cards import user
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.decorators import async_action
from wsaction.exceptions import APIError, NotFound
from wsaction.generics import ModelAPIActionHandler
from wsaction.permissions import BasePermission
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import path
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SharedTopic, SubscribeMixin
from wsaction.testing import WebSocketSession, connect

OWNER, STRANGER = 1, 2


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Member(Base):
    __tablename__ = "member"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id", ondelete="CASCADE"))


class Project(Base):
    __tablename__ = "project"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[int]


class Hexed(sqlalchemy.types.TypeDecorator[int]):
    """A column type of the application without a JSON form."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else hex(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else int(value, 16)


class Task(Base):
    __tablename__ = "task"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    archived: Mapped[bool] = mapped_column(default=False)
    tags: Mapped[Any] = mapped_column(JSON, default=lambda: ["a", {"b": 1}])
    digest: Mapped[bytes] = mapped_column(LargeBinary, default=b"\xff\x00")
    mask: Mapped[int] = mapped_column(Hexed, default=OWNER)
    project_id: Mapped[int | None] = mapped_column(ForeignKey("project.id"))
    project: Mapped[Project | None] = relationship()
    members: Mapped[list[Member]] = relationship(passive_deletes=True, cascade="all, delete-orphan")


class AnyCase(ColumnProperty.Comparator[str]):
    def __eq__(self, other: Any) -> Any:
        return sqlalchemy.func.lower(self.__clause_element__()) == sqlalchemy.func.lower(other)


class Folded(Base):
    """The same tasks, with titles that compare in any case."""

    __table__ = Task.__table__
    title = column_property(Task.__table__.c.title, comparator_factory=AnyCase)


class TaskOut(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str
    archived: bool = False


class Document(Base):
    __tablename__ = "document"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "document", "with_polymorphic": "*"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    title: Mapped[str]


class Letter(Document):
    __tablename__ = "letter"
    __mapper_args__ = {"polymorphic_identity": "letter"}

    id: Mapped[int] = mapped_column(ForeignKey("document.id"), primary_key=True)
    owner: Mapped[int]


class DocumentOut(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str


class Database:
    """Sessions of a SQLite database with two projects, one task and one letter; ``reads`` collects its SELECTs."""

    def __init__(self, engine: Any) -> None:
        self.sessions = async_sessionmaker(engine)
        self.reads: list[str] = []
        event.listen(engine.sync_engine, "before_cursor_execute", self._note)

    def _note(self, connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            self.reads.append(statement)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with shelves.sqlite(tmp_path, Base.metadata) as engine:
        made = Database(engine)
        async with made.sessions.begin() as session:
            session.add_all([Project(id=1, owner=OWNER), Project(id=2, owner=STRANGER)])
            await session.flush()
            session.add(Task(id=1, title="old", project_id=1, members=[Member(id=1, user_id=OWNER)]))
            session.add(Letter(id=1, title="old", owner=OWNER))
        yield made


@asynccontextmanager
async def listening(queryset: Any, **attributes: Any) -> AsyncIterator[Any]:
    """The app, and the owner and a stranger, both subscribed to ``items/``."""
    bases = attributes.pop("bases", (SubscribeMixin, ModelAPIActionHandler))
    handler = type("Items", bases, {"queryset": queryset, "serializer_class": TaskOut, **attributes})
    router = SimpleRouter()
    router.register("items", handler, basename="item")
    root: Any = type("Root", (AsyncAPIConsumer,), {"routepatterns": router.urls})
    app = WSAction([path("ws/", root.as_asgi())])
    async with (
        app.lifespan(),
        connect(app, "/ws/", user=user(OWNER)) as owner,
        connect(app, "/ws/", user=user(STRANGER)) as stranger,
    ):
        for ws in (owner, stranger):
            await position(ws, "items/")
        yield app, owner, stranger


def permission_by(rule: Any) -> type[BasePermission]:
    """An object permission whose verdict is a function of the user's key and the object."""

    class ByRule(BasePermission):
        async def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
            verdict = rule(scope["user"].pk, obj)
            return bool(await verdict if hasattr(verdict, "__await__") else verdict)

    return ByRule


async def until_mark(app: Any, *sockets: Any) -> list[list[Any]]:
    """The events that each socket received up to now."""
    await app.publish("items/", "mark")
    batches = []
    for ws in sockets:
        events: list[Any] = []
        while (event := await ws.event())["event"] != "mark":
            events.append((event["event"], event["data"]))
        batches.append(events)
    return batches


NEW = {"id": 1, "title": "secret", "archived": False}


# ------------------------------------------------------------------------------------------- the object that is checked
async def test_relations_are_read_as_the_queryset_loads_them(database: Database) -> None:
    rule = permission_by(lambda pk, task: task.project is None or task.project.owner == pk)
    rows = select(Task).options(selectinload(Task.project))
    queryset = SQLAlchemyQuerySet(rows, database.sessions)
    async with listening(queryset, permission_classes=(rule,)) as (app, owner, stranger):
        assert (await stranger.call("retrieve", "items/1/"))["status"] == 403
        assert (await owner.call("partial_update", "items/1/", {"title": "secret"}))["status"] == 200
        assert await until_mark(app, owner, stranger) == [[("updated", NEW)], []]
        async with database.sessions.begin() as session:
            task = await session.get(Task, 1)
            before, task.project_id = queryset.values_of(task), 2
        await app.publish_object("items/", "updated", task, before=before)
        assert await until_mark(app, owner, stranger) == [[("deleted", {"pk": 1})], [("created", NEW)]]
        assert (await stranger.call("destroy", "items/1/"))["status"] == 204
        assert await until_mark(app, owner, stranger) == [[], [("deleted", {"pk": 1})]]


async def test_a_subclass_is_checked_as_its_own_class(database: Database) -> None:
    rule = permission_by(lambda pk, document: not isinstance(document, Letter) or document.owner == pk)
    queryset = SQLAlchemyQuerySet(Document, database.sessions)
    attributes = {"permission_classes": (rule,), "serializer_class": DocumentOut}
    async with listening(queryset, **attributes) as (app, owner, stranger):
        assert (await stranger.call("retrieve", "items/1/"))["status"] == 403
        assert (await owner.call("partial_update", "items/1/", {"title": "secret"}))["status"] == 200
        assert await until_mark(app, owner, stranger) == [[("updated", {"id": 1, "title": "secret"})], []]


async def test_awaitable_attributes_are_loaded_for_each_recipient(database: Database) -> None:
    async def may(pk: int, task: Any) -> bool:
        return (await task.awaitable_attrs.project).owner == pk

    queryset = SQLAlchemyQuerySet(Task, database.sessions)
    async with listening(queryset, permission_classes=(permission_by(may),)) as (app, owner, stranger):
        assert (await owner.call("partial_update", "items/1/", {"title": "secret"}))["status"] == 200
        # The past cannot be awaited, so the stranger may have seen it.
        assert await until_mark(app, owner, stranger) == [[("updated", NEW)], [("deleted", {"pk": 1})]]


async def test_a_collection_is_current_and_its_past_is_unknown(database: Database) -> None:
    rule = permission_by(lambda pk, task: any(member.user_id == pk for member in task.members))
    queryset = SQLAlchemyQuerySet(select(Task).options(selectinload(Task.members)), database.sessions)
    async with listening(queryset, permission_classes=(rule,)) as (app, owner, stranger):
        assert (await owner.call("partial_update", "items/1/", {"title": "secret"}))["status"] == 200
        assert await until_mark(app, owner, stranger) == [[("updated", NEW)], [("deleted", {"pk": 1})]]
        async with database.sessions.begin() as session:
            task = await session.get(Task, 1)
            before, task.title = queryset.values_of(task), "not for the owner any more"
            await session.delete(await session.get(Member, 1))
        await app.publish_object("items/", "updated", task, before=before)
        assert await until_mark(app, owner, stranger) == [[("deleted", {"pk": 1})]] * 2


async def test_values_without_a_json_form_are_not_made_up(database: Database) -> None:
    """The rule reads a column of a custom type, bytes, and a list in a JSON column."""
    rule = permission_by(
        lambda pk, task: task.digest == b"\xff\x00" and task.tags == ["a", {"b": 1}] and task.mask == pk
    )
    queryset = SQLAlchemyQuerySet(Task, database.sessions)
    async with listening(queryset, permission_classes=(rule,)) as (app, owner, stranger):
        assert (await owner.call("partial_update", "items/1/", {"title": "secret"}))["status"] == 200
        assert await until_mark(app, owner, stranger) == [[("updated", NEW)], [("deleted", {"pk": 1})]]


@pytest.mark.parametrize("rows", ["select", "filter"])
async def test_rows_outside_the_queryset_are_not_shown(rows: str, database: Database) -> None:
    plain = SQLAlchemyQuerySet(Task, database.sessions)
    live = SQLAlchemyQuerySet(select(Task).where(~Task.archived), database.sessions)
    queryset = live if rows == "select" else plain.filter(archived=False)
    async with listening(queryset) as (app, owner, stranger):
        changes = {"title": "secret", "archived": True}
        if rows == "select":
            assert (await owner.call("partial_update", "items/1/", changes))["status"] == 200
        else:
            task = await plain.get(pk=1)
            before = plain.values_of(task)
            await app.publish_object("items/", "updated", await plain.update(task, changes), before=before)
        assert (await owner.call("retrieve", "items/1/"))["status"] == 404
        assert await until_mark(app, owner, stranger) == [[("deleted", {"pk": 1})]] * 2


class SoftSession(Session):
    """A session that hides archived tasks, as in SQLAlchemy's recipe for soft deletion."""


@event.listens_for(SoftSession, "do_orm_execute")
def _hide(state: Any) -> None:
    if state.is_select and not state.is_column_load:
        state.statement = state.statement.options(LIVE)


LIVE = with_loader_criteria(Task, ~Task.archived)


@pytest.mark.parametrize("by", ["option", "session"])
async def test_rows_hidden_by_loader_criteria_are_not_shown(by: str, database: Database) -> None:
    soft = async_sessionmaker(database.sessions.kw["bind"], sync_session_class=SoftSession)
    queryset: Any = SQLAlchemyQuerySet(Task, soft)
    if by == "option":
        queryset = SQLAlchemyQuerySet(select(Task).options(LIVE), database.sessions)
    async with listening(queryset) as (app, owner, stranger):
        assert (await owner.call("partial_update", "items/1/", {"title": "secret"}))["status"] == 200
        assert await until_mark(app, owner, stranger) == [[("updated", NEW)]] * 2
        await owner.call("partial_update", "items/1/", {"title": "hidden", "archived": True})
        assert (await owner.call("retrieve", "items/1/"))["status"] == 404
        assert await until_mark(app, owner, stranger) == [[("deleted", {"pk": 1})]] * 2


async def test_a_json_null_is_not_a_sql_null(database: Database) -> None:
    plain = SQLAlchemyQuerySet(Task, database.sessions)
    async with listening(plain.filter(tags__isnull=True)) as (app, owner, stranger):
        task = await plain.get(pk=1)
        before = plain.values_of(task)
        task = await plain.update(task, {"title": "secret", "tags": None})  # stored as the null of JSON
        await app.publish_object("items/", "updated", task, before=before)
        assert (await owner.call("retrieve", "items/1/"))["status"] == 404
        assert await until_mark(app, owner, stranger) == [[("deleted", {"pk": 1})]] * 2


async def test_a_custom_comparator_is_left_to_the_database(database: Database) -> None:
    plain = SQLAlchemyQuerySet(Folded, database.sessions)
    async with listening(plain.filter(title="OLD")) as (app, owner, stranger):
        assert (await owner.call("partial_update", "items/1/", {"archived": True}))["status"] == 200
        shown = {"id": 1, "title": "old", "archived": True}
        assert await until_mark(app, owner, stranger) == [[("updated", shown)]] * 2


async def test_a_row_that_leaves_a_memory_queryset_is_deleted() -> None:
    cards = MemoryQuerySet(Card, rows=[Card(id=1, title="old")])
    async with listening(cards.filter(done=False), serializer_class=Card) as (app, owner, stranger):
        card = await cards.update(await cards.get(pk=1), {"title": "secret", "done": True})
        await app.publish_object("items/", "updated", card, before={"pk": 1, "done": False})
        assert await until_mark(app, owner, stranger) == [[("deleted", {"pk": 1})]] * 2


async def _hidden(read: Any) -> Any:
    if (found := await read).archived:
        raise NotFound
    return found


class HidingTasks(SQLAlchemyQuerySet[Task]):
    async def get(self, *conditions: Any, **lookups: Any) -> Task:
        found: Task = await _hidden(super().get(*conditions, **lookups))
        return found


class HidingCards(MemoryQuerySet[TaskOut]):
    async def _at(self, key: Any) -> TaskOut | None:
        found: TaskOut | None = await super()._at(key)
        return None if found is None or found.archived else found


@pytest.mark.parametrize("store", ["memory", "sqlalchemy"])
async def test_rows_that_a_custom_get_hides_are_not_shown(store: str, database: Database) -> None:
    queryset: Any = HidingTasks(Task, database.sessions)
    if store == "memory":
        queryset = HidingCards(TaskOut, rows=[TaskOut(id=1, title="old")])
    async with listening(queryset) as (app, owner, stranger):
        assert (await owner.call("partial_update", "items/1/", {"title": "secret"}))["status"] == 200
        assert await until_mark(app, owner, stranger) == [[("updated", NEW)]] * 2
        assert (await owner.call("partial_update", "items/1/", {"archived": True}))["status"] == 200
        assert (await owner.call("retrieve", "items/1/"))["status"] == 404
        assert await until_mark(app, owner, stranger) == [[("deleted", {"pk": 1})]] * 2


async def test_get_queryset_is_the_scope_without_a_class_queryset(database: Database) -> None:
    class Own(SubscribeMixin, ModelAPIActionHandler):
        def get_queryset(self) -> Any:
            return SQLAlchemyQuerySet(Task, database.sessions).filter(project__owner=self.user.pk)

    async with listening(None, bases=(Own,)) as (app, owner, stranger):
        assert (await owner.call("partial_update", "items/1/", {"title": "secret"}))["status"] == 200
        # Only the database could have said, before the change, whether the stranger saw it.
        assert await until_mark(app, owner, stranger) == [[("updated", NEW)], [("deleted", {"pk": 1})]]


async def test_case_folding_is_left_to_the_database(database: Database) -> None:
    class Accented(SubscribeMixin, ModelAPIActionHandler):
        def get_queryset(self) -> Any:
            rows = super().get_queryset()
            return rows.filter(title__icontains="É") if self.user.pk == STRANGER else rows

    async with listening(SQLAlchemyQuerySet(Task, database.sessions), bases=(Accented,)) as (app, owner, stranger):
        for title in ("é", "É"):
            assert (await owner.call("create", "items/", {"title": title}))["status"] == 201
        listed = (await stranger.call("list", "items/"))["data"]["results"]
        assert [task["title"] for task in listed] == ["É"]
        created = [data["title"] for _, data in (await until_mark(app, owner, stranger))[1]]
        assert created == ["É"]


async def test_an_object_of_another_class_with_the_same_key_is_hidden(database: Database) -> None:
    """A task published on the route of letters is no letter, although a letter has the same key."""

    class Letters(SubscribeMixin, ModelAPIActionHandler):
        queryset = SQLAlchemyQuerySet(Document, database.sessions)
        serializer_class = DocumentOut
        permission_classes = (permission_by(lambda pk, document: document.title == "old"),)

    class Tasks(SubscribeMixin, ModelAPIActionHandler):
        queryset = SQLAlchemyQuerySet(Task, database.sessions)
        serializer_class = TaskOut

        def get_event_routes(self, event: str, obj: Any) -> list[str]:
            return ["items/"]

    class Root(AsyncAPIConsumer):
        routepatterns = [path("items/", Letters.as_aaah()), path("tasks/<int:pk>/", Tasks.as_aaah())]

    app = WSAction([path("ws/", Root.as_asgi())])
    async with app.lifespan(), connect(app, "/ws/", user=user(OWNER)) as ws:
        await position(ws, "items/")
        assert (await ws.call("partial_update", "tasks/1/", {"title": "secret"}))["status"] == 200
        [[(name, data)]] = await until_mark(app, ws)
        assert name == "$resync"
        assert data.keys() == {"epoch", "offset"}


# ----------------------------------------------------------------------------------------------- queries for each event
async def reads_of_one_event(database: Database, watchers: int, **attributes: Any) -> tuple[int, int]:
    """How many SELECTs one event of `publish_object` costs, and how many recipients see it."""
    queryset = SQLAlchemyQuerySet(select(Task).options(selectinload(Task.project)), database.sessions)
    handler = type(
        "Items",
        attributes.pop("bases", (SubscribeMixin, ModelAPIActionHandler)),
        {
            "queryset": queryset,
            "serializer_class": TaskOut,
            **attributes,
        },
    )
    router = SimpleRouter()
    router.register("items", handler, basename="item")
    root: Any = type("Root", (AsyncAPIConsumer,), {"routepatterns": router.urls})
    app = WSAction([path("ws/", root.as_asgi())])
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.lifespan())
        sockets = [
            await stack.enter_async_context(connect(app, "/ws/", user=user(number % 2 + 1)))
            for number in range(watchers)
        ]
        for ws in sockets:
            await position(ws, "items/")
        task = await queryset.get(pk=1)
        before = queryset.values_of(task)
        task = await queryset.update(task, {"title": "secret"})
        database.reads.clear()
        await app.publish_object("items/", "updated", task, before=before)
        batches = await until_mark(app, *sockets)
        return len(database.reads), sum(("updated", NEW) in events for events in batches)


@pytest.mark.parametrize("watchers", [2, 20])
async def test_an_event_is_read_once_for_recipients_who_load_alike(watchers: int, database: Database) -> None:
    rule = permission_by(lambda pk, task: task.project.owner == pk)
    reads, shown_to = await reads_of_one_event(database, watchers, permission_classes=(rule,))
    assert shown_to == watchers // 2
    assert reads == 2  # the row and its project, once for all recipients


class Mine(SubscribeMixin, ModelAPIActionHandler):
    def get_queryset(self) -> Any:
        return super().get_queryset().filter(project_id=self.user.pk)


@pytest.mark.parametrize("attributes", [{}, {"bases": (Mine,)}])
async def test_nothing_is_read_if_values_decide_who_sees_an_event(attributes: Any, database: Database) -> None:
    reads, shown_to = await reads_of_one_event(database, 4, **attributes)
    assert (reads, shown_to) == (0, 2 if attributes else 4)


async def test_filter_backends_get_the_query_of_the_subscription(database: Database) -> None:
    class OfProject:
        def parameters(self, handler: Any) -> tuple[str, ...]:
            return ("project",)

        def check(self, handler: Any) -> None: ...

        def filter_queryset(self, queryset: Any, handler: Any) -> Any:
            if "project" not in handler.query_params:
                raise APIError(400, "no_project", "Say which project.")
            return queryset.filter(project_id=handler.query_params["project"])

    class Items(SubscribeMixin, ModelAPIActionHandler):
        queryset = SQLAlchemyQuerySet(Task, database.sessions)
        serializer_class = TaskOut
        filter_backends = (OfProject,)

    class Root(AsyncAPIConsumer):
        routepatterns = [path("items/", Items.as_aaah())]

    app = WSAction([path("ws/", Root.as_asgi())])
    async with app.lifespan(), connect(app, "/ws/") as one, connect(app, "/ws/") as two:
        await position(one, "items/?project=1")
        await position(two, "items/?project=2")
        task = await Items.queryset.get(pk=1)
        before = Items.queryset.values_of(task)
        task = await Items.queryset.update(task, {"title": "secret"})
        await app.publish_object("items/", "updated", task, before=before)
        assert await until_mark(app, one, two) == [[("updated", NEW)], []]


class Secretive(BaseModel):
    id: Annotated[int, ReadOnly] = 0
    title: str = ""
    secret: str = "SECRET"


class Brief(BaseModel):
    id: int
    title: str


def _serializer_by_user(self: Any) -> type[BaseModel]:
    return Secretive if self.user.is_authenticated else Brief


def _shown_by_user(self: Any, obj: Any) -> BaseModel:
    return Brief(id=obj.id, title=obj.title)


@async_action
async def _by_itself(self: Any) -> Any:
    return _shown_by_user(self, await self.get_object())


HOOKS: list[dict[str, Any]] = [
    {"get_serializer_class": _serializer_by_user},
    {"serialize": _shown_by_user},
    {"retrieve": _by_itself},
    {"retrieve": None, "list": _by_itself},
    {"retrieve": None, "serialize_many": lambda self, objs: [_shown_by_user(self, one) for one in objs]},
]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: "-".join(hook))
async def test_events_show_only_the_key_if_hooks_decide_the_content(hook: Any) -> None:
    rows = MemoryQuerySet(Secretive, rows=[Secretive(id=1)])
    members = {"queryset": rows, "serializer_class": Secretive, "input_serializer_class": Brief, **hook}
    router = SimpleRouter()
    router.register("notes", type("Notes", (SubscribeMixin, ModelAPIActionHandler), members))
    root: Any = type("Root", (AsyncAPIConsumer,), {"routepatterns": router.urls})
    async with connect(WSAction([path("ws/", root.as_asgi())]), "/ws/") as ws:
        await ws.call("subscribe", "notes/1/")
        reply = await ws.call("partial_update", "notes/1/", data={"title": "new"})
        event = await ws.event("updated")
    assert (event["event"], event["data"]) == ("updated", {"pk": 1})
    assert "retrieve" in hook or "SECRET" not in str(reply)


class Bare(BaseModel):
    id: int
    page: int  # a note has no such field


@pytest.mark.parametrize(
    ("shows", "data"), [(Brief, {"id": 1, "title": "new"}), (Secretive, None), (Bare, {"pk": 1})], ids=str
)
async def test_each_route_shows_events_as_its_retrieve_does(shows: Any, data: Any) -> None:
    class Notes(SubscribeMixin, ModelAPIActionHandler):
        queryset = MemoryQuerySet(Secretive, rows=[Secretive(id=1)])
        serializer_class = Secretive

        def get_event_routes(self, event: str, obj: Any) -> list[str]:
            return [f"staff/{obj.id}/", f"notes/{obj.id}/"]

    patterns = [
        path("staff/<int:pk>/", Notes.as_aaah()),
        path("notes/<int:pk>/", Notes.as_aaah(serializer_class=shows)),
    ]
    root: Any = type("Root", (AsyncAPIConsumer,), {"routepatterns": patterns})
    async with connect(WSAction([path("ws/", root.as_asgi())]), "/ws/") as ws:
        await ws.call("subscribe", "notes/1/")
        reply = await ws.call("partial_update", "staff/1/", data={"title": "new"})
        event = await ws.event("updated")
    assert event["data"] == (data or reply["data"])


class Known(BasePermission):
    async def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        return bool(await handler.queryset.count())

    async def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
        return bool(await handler.queryset.count())


class Nobody(BasePermission):
    def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        return False


class Stranger(BasePermission):
    def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
        return action not in ("list", "retrieve")


SHOWS = ("list", "retrieve")
BY_ACTION: dict[str, Any] = {  # as users of Django REST framework write it, without subscribe in mind
    "get_queryset": lambda self: self.queryset.filter(title="x") if self.action in SHOWS else self.queryset,
    "get_permissions": lambda self: (Nobody,) if self.action in SHOWS else (),
    "permission_classes": (Stranger,),
}


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("route", ["notes/", "notes/1/"])
@pytest.mark.parametrize("hook", BY_ACTION)
async def test_rules_by_action_apply_to_events_as_to_retrieve(hook: str, route: str, hidden: bool) -> None:
    members: dict[str, Any] = {
        "queryset": MemoryQuerySet(Brief, rows=[Brief(id=1, title="old")]),
        "serializer_class": Brief,
        "__module__": __name__,
    }
    if hidden:
        members[hook] = BY_ACTION[hook]
    router = SimpleRouter()
    router.register("notes", type("Notes", (SubscribeMixin, ModelAPIActionHandler), members))
    root: Any = type("Root", (AsyncAPIConsumer,), {"routepatterns": router.urls})
    async with connect(WSAction([path("ws/", root.as_asgi())]), "/ws/") as ws:
        await ws.call("subscribe", route)
        assert (await ws.call("partial_update", "notes/1/", data={"title": "new"}))["status"] == 200
        shown = await ws.call("retrieve", "notes/1/")
        if hidden:
            assert shown["status"] in (403, 404)
            await ws.nothing()
        else:
            assert (await ws.event("updated"))["data"] == shown["data"]


class ByAction(BasePermission):
    def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        return action not in SHOWS


class ByHandlersAction(BasePermission):
    def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        return handler.action not in SHOWS


@async_action(permission_classes=(Nobody,))
async def refused_list(self: Any) -> list[dict[str, Any]]:
    return []


@pytest.mark.parametrize(
    ("route", "members"),
    [
        ("notes/", {"permission_classes": (ByAction,)}),
        ("notes/1/", {"permission_classes": (ByAction,)}),
        ("notes/1/", {"permission_classes": (ByHandlersAction,)}),
        ("notes/", {"list": refused_list}),
    ],
)
async def test_subscribing_needs_the_right_to_list_or_retrieve(route: str, members: dict[str, Any]) -> None:
    async with connect(_notes(members), "/ws/") as ws:
        assert (await ws.call("list" if route == "notes/" else "retrieve", route))["status"] == 403
        assert (await ws.call("subscribe", route))["status"] == 403
        assert (await ws.call("partial_update", "notes/1/", data={"title": "new"}))["status"] == 200
        await ws.nothing()


@async_action
async def change(self: Any) -> None:
    note = await self.queryset.get(pk=1)
    before = self.queryset.values_of(note)
    await self.publish_object("updated", await self.queryset.update(note, {"title": "new"}), before=before)


async def test_permissions_of_a_parent_by_action_apply_to_events() -> None:
    app = _notes({}, get_permissions=lambda self: (Nobody,) if self.action in SHOWS else ())
    async with connect(app, "/ws/") as ws:
        for action in ("list", "subscribe"):
            assert (await ws.call(action, "notes/"))["status"] == 403


@async_action
async def keys(self: Any) -> list[dict[str, Any]]:
    return [{"id": note.id} async for note in self.get_queryset()]


@async_action(permission_classes=())
async def open_list(self: Any) -> list[dict[str, Any]]:
    return [{"id": note.id} async for note in self.get_queryset()]


RESTRICTED: dict[str, Any] = {  # for retrieve only
    "get_queryset": lambda self: self.queryset.filter(title="x") if self.action == "retrieve" else self.queryset,
    "get_permissions": lambda self: (Nobody,) if self.action == "retrieve" else (),
    "permission_classes": (type("Nobodys", (BasePermission,), {"has_object_permission": lambda *_: False}),),
}


@pytest.mark.parametrize("own", [keys, open_list])
@pytest.mark.parametrize("hook", RESTRICTED)
async def test_content_that_list_omits_needs_the_right_to_retrieve(hook: str, own: Any) -> None:
    members = {"list": own, hook: RESTRICTED[hook], "change": change}
    async with connect(_notes(members), "/ws/") as ws:
        assert (await ws.call("list", "notes/"))["data"] == [{"id": 1}]
        assert (await ws.call("retrieve", "notes/1/"))["status"] in (403, 404)
        assert (await ws.call("subscribe", "notes/"))["status"] == 200
        assert (await ws.call("change", "notes/"))["status"] == 200
        await ws.nothing()


@pytest.mark.parametrize("hook", RESTRICTED)
async def test_without_a_list_events_follow_the_rules_of_retrieve(hook: str) -> None:
    async with connect(_notes({"list": None, hook: RESTRICTED[hook], "change": change}), "/ws/") as ws:
        assert (await ws.call("retrieve", "notes/1/"))["status"] in (403, 404)
        assert (await ws.call("subscribe", "notes/"))["status"] == 200
        assert (await ws.call("change", "notes/"))["status"] == 200
        await ws.nothing()


async def test_a_custom_list_gets_full_events_of_retrievable_objects() -> None:
    def get_queryset(self: Any) -> Any:
        return self.queryset.filter(pk=self.kwargs["pk"]) if self.action == "retrieve" else self.queryset

    async with connect(_notes({"list": keys, "get_queryset": get_queryset, "change": change}), "/ws/") as ws:
        await ws.call("subscribe", "notes/")
        assert (await ws.call("change", "notes/"))["status"] == 200
        assert (await ws.event("updated"))["data"] == {"id": 1, "title": "new"}


class Author(BaseModel):
    name: str


class Poem(BaseModel):
    id: int
    title: str
    slug: str | None = None
    author: Author = Author(name="ada")


@pytest.mark.parametrize("members", [{}, {"list": keys}, {"list": None}], ids=["list", "own list", "no list"])
@pytest.mark.parametrize(
    ("lookup", "slug", "event"),
    [("slug", "a", "updated"), ("pk", None, "updated"), ("slug", None, "$resync"), ("author__name", "a", "$resync")],
)
async def test_a_get_object_is_not_asked_for_a_key_that_the_event_lacks(
    lookup: str, slug: str | None, event: str, members: dict[str, Any]
) -> None:
    asked = []

    class Poems(SubscribeMixin, ModelAPIActionHandler):
        queryset = MemoryQuerySet(Poem, rows=[Poem(id=1, title="old", slug=slug)])
        serializer_class = Poem
        lookup_field = lookup

        async def get_object(self) -> Any:
            asked.append(key := self.kwargs[lookup])
            if key is None:
                raise NotFound
            return await self.get_queryset().get(**{lookup: key})

    kind = type("Poems", (Poems,), {**members, "change": change})
    routes = [path("poems/", kind.as_aaah()), path(f"poems/<str:{lookup}>/", kind.as_aaah())]
    root: Any = type("Root", (AsyncAPIConsumer,), {"routepatterns": routes})
    async with connect(WSAction([path("ws/", root.as_asgi())]), "/ws/") as ws:
        assert (await ws.call("subscribe", "poems/"))["status"] == 200
        assert (await ws.call("change", "poems/"))["status"] == 200
        assert (await ws.event())["event"] == event
    assert all(key in ("a", 1) for key in asked)


def _notes(members: dict[str, Any], **above: Any) -> WSAction:
    members = {
        "queryset": MemoryQuerySet(Brief, rows=[Brief(id=1, title="old")]),
        "serializer_class": Brief,
        "__module__": __name__,
        **members,
    }
    router = SimpleRouter()
    router.register("notes", type("Notes", (SubscribeMixin, ModelAPIActionHandler), members))
    root: Any = type("Root", (AsyncAPIConsumer,), {"routepatterns": router.urls, **above})
    return WSAction([path("ws/", root.as_asgi())])


class Long(BaseModel):
    id: int
    title: str
    secret: str = "s"


class ThatOwn(BasePermission):
    def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
        return bool(obj.title == "mine")


async def test_get_topic_of_distinct_routes_keeps_each_serializer() -> None:
    class Base(SubscribeMixin, ModelAPIActionHandler):
        queryset = MemoryQuerySet(Long, rows=[Long(id=1, title="old")])

        def get_topic(self) -> str:
            return super().get_topic()

    router = SimpleRouter()
    for name, shows in (("notes", Brief), ("staff", Long)):
        router.register(name, type(name.title(), (Base,), {"serializer_class": shows}), basename=name)

    class Root(AsyncAPIConsumer):
        routepatterns = router.urls

    async with connect(WSAction([path("ws/", Root.as_asgi())]), "/ws/") as ws:
        await ws.call("subscribe", "staff/")
        await ws.call("partial_update", "staff/1/", data={"title": "new"})
        assert (await ws.event("updated"))["data"] == {"id": 1, "title": "new", "secret": "s"}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("members", "title", "expected"),
    [
        ({}, "new", {"pk": 1}),
        ({"serializer_class": Long}, "new", {"id": 1, "title": "new", "secret": "s"}),
        ({"serializer_class": Long, "permission_classes": (ThatOwn,)}, "new", None),
        (
            {"serializer_class": Long, "permission_classes": (ThatOwn,)},
            "mine",
            {"id": 1, "title": "mine", "secret": "s"},
        ),
        (
            {"queryset": MemoryQuerySet(Card), "permission_classes": (ThatOwn,)},
            "new",
            {"id": 1, "title": "new", "secret": "s"},
        ),
    ],
)
async def test_handlers_with_a_shared_topic_show_their_own_content(
    shared: bool, members: dict[str, Any], title: str, expected: Any
) -> None:
    class Base(SubscribeMixin, ModelAPIActionHandler):
        queryset = MemoryQuerySet(Long, rows=[Long(id=1, title="old")])

        def get_topic(self) -> str:
            return SharedTopic("notes") if shared else "notes"

    class Staff(Base):
        serializer_class = Long

    router = SimpleRouter()
    router.register("staff", Staff, basename="staff")
    router.register("notes", type("Public", (Base,), {"serializer_class": Brief, **members}), basename="notes")

    class Root(AsyncAPIConsumer):
        routepatterns = router.urls

    async with connect(WSAction([path("ws/", Root.as_asgi())]), "/ws/") as ws:
        await ws.call("subscribe", "notes/")
        await ws.call("partial_update", "staff/1/", data={"title": title})
        if expected is None:
            await ws.nothing()
        else:
            assert (await ws.receive_json())["data"] == expected


@pytest.mark.parametrize(("title", "expected"), [("new", None), ("mine", {"id": 1, "title": "mine", "secret": "s"})])
async def test_permissions_of_each_mount_apply_on_a_shared_topic(title: str, expected: Any) -> None:
    class Notes(SubscribeMixin, ModelAPIActionHandler):
        queryset = MemoryQuerySet(Long, rows=[Long(id=1, title="old")])
        serializer_class = Long

        def get_topic(self) -> str:
            return "notes"

    class Root(AsyncAPIConsumer):
        routepatterns = [
            path("staff/<int:pk>/", Notes.as_aaah()),
            path("notes/", Notes.as_aaah(permission_classes=(ThatOwn,))),
        ]

    async with connect(WSAction([path("ws/", Root.as_asgi())]), "/ws/") as ws:
        await ws.call("subscribe", "notes/")
        await ws.call("partial_update", "staff/1/", data={"title": title})
        if expected is None:
            await ws.nothing()
        else:
            assert (await ws.receive_json())["data"] == expected


class IsNamed(BasePermission):
    def has_object_permission(self, scope: Any, handler: Any, action: str, obj: Any) -> bool:
        return action == "partial_update" or obj.title == "ann"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [("ann", "ann", "updated"), ("bob", "ann", "created"), ("ann", "bob", "deleted"), ("bob", "bob", None)],
)
async def test_an_object_that_leaves_a_route_is_checked_by_its_rules(
    before: str, after: str, expected: str | None
) -> None:
    """Both changes are one event, but only the route of the first one has permissions."""

    class Public(SubscribeMixin, ModelAPIActionHandler):
        queryset = MemoryQuerySet(Long, rows=[Long(id=1, title=before)])
        serializer_class = Long

        def get_event_routes(self, event: str, obj: Long) -> list[str]:
            return ["public/"] if obj.secret == "public" else ["drafts/"]

    class Drafts(Public):
        permission_classes = (IsNamed,)

        async def perform_update(self, obj: Any, values: dict[str, Any]) -> Any:
            obj = await super().perform_update(obj, {"title": after})
            return await super().perform_update(obj, {"secret": "public"})

    router = SimpleRouter()
    router.register("drafts", Drafts)

    class Root(AsyncAPIConsumer):
        routepatterns = [*router.urls, path("public/", Public.as_aaah())]

    async with connect(WSAction([path("ws/", Root.as_asgi())]), "/ws/") as ws:
        await ws.call("subscribe", "drafts/")
        await ws.call("partial_update", "drafts/1/", data={})
        if expected is None:
            await ws.nothing()
        else:
            shown = {"pk": 1} if expected == "deleted" else {"id": 1, "title": after, "secret": "public"}
            assert (await ws.event(expected))["data"] == shown


async def test_subscribing_in_an_action_checks_within_its_unit() -> None:
    """The only connection of the database belongs to the unit of work."""
    async with _projects({"permission_classes": (Known,)}) as ws:
        assert (await ws.call("subscribe", "projects/1/"))["status"] == 200
        assert (await ws.call("enter", "projects/"))["status"] == 200


@pytest.mark.parametrize("members", [{"permission_classes": (Known,)}, {"get_permissions": lambda self: (Known,)}])
async def test_event_checks_hold_no_connection_while_rows_are_read(members: dict[str, Any]) -> None:
    async with _projects(members) as ws:
        await ws.call("subscribe", "projects/")
        await ws.call("partial_update", "projects/1/", data={"owner": 2})
        assert (await ws.event("updated"))["data"] == {"id": 1, "owner": 2}


@asynccontextmanager
async def _projects(members: dict[str, Any]) -> AsyncIterator[WebSocketSession]:
    """Projects in a database with a single connection."""
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    projects = SQLAlchemyQuerySet(Project, async_sessionmaker(engine))
    await projects.create({"id": 1, "owner": 1})

    class Out(BaseModel):
        id: int
        owner: int

    class Projects(SubscribeMixin, ModelAPIActionHandler):
        queryset = projects
        serializer_class = Out

        @async_action
        async def enter(self) -> None:
            await projects.create({"id": 2, "owner": 1})
            await self.subscribe()

    router = SimpleRouter()
    router.register("projects", type("Asked", (Projects,), members))
    root: Any = type("Root", (AsyncAPIConsumer,), {"routepatterns": router.urls})
    async with connect(WSAction([path("ws/", root.as_asgi())]), "/ws/") as ws:
        yield ws
    await engine.dispose()
