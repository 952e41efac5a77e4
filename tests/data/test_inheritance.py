"""`SQLAlchemyQuerySet` with inheritance: objects are changed, deleted and shown through their base class."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import sqlalchemy
from pydantic import BaseModel
from sqlalchemy import Computed, FetchedValue, ForeignKey, String, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.ext.declarative import ConcreteBase
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    contains_eager,
    joinedload,
    mapped_column,
    relationship,
)

from tests.support import shelves
from tests.support.driving import talking
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.generics import ModelAPIActionHandler
from wsaction.serializers import ReadOnly


class Base(DeclarativeBase):
    pass


class Team(Base):
    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Person(Base):
    """Joined inheritance; subclasses are loaded with the base class."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str]
    team_id: Mapped[int | None] = mapped_column(ForeignKey("team.id"))
    team: Mapped[Team | None] = relationship(lazy="joined")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person", "with_polymorphic": "*"}


class Manager(Person):
    __tablename__ = "manager"
    id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    budget: Mapped[int] = mapped_column(default=5)
    changes: Mapped[int] = mapped_column(default=0, onupdate=sqlalchemy.text("changes + 1"))
    __mapper_args__ = {"polymorphic_identity": "manager"}


class Animal(Base):
    """Joined inheritance; columns of subclasses are loaded separately."""

    __tablename__ = "animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}


class Dog(Animal):
    __tablename__ = "dog"
    id: Mapped[int] = mapped_column(ForeignKey("animal.id"), primary_key=True)
    tricks: Mapped[int] = mapped_column(server_default="1")
    doubled: Mapped[int] = mapped_column(Computed("tricks * 2", persisted=True))
    changed: Mapped[Any] = mapped_column(sqlalchemy.DateTime, server_default=func.now(), onupdate=func.now())
    __mapper_args__ = {"polymorphic_identity": "dog", "eager_defaults": False}


class Vehicle(Base):
    """Single-table inheritance."""

    __tablename__ = "vehicle"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str]
    version: Mapped[int] = mapped_column()

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle", "version_id_col": version}


class Car(Vehicle):
    doors: Mapped[int | None] = mapped_column(server_default="4")
    serviced: Mapped[Any] = mapped_column(sqlalchemy.DateTime, nullable=True, onupdate=func.now())
    checked: Mapped[int | None] = mapped_column(server_default="1", server_onupdate=FetchedValue())
    __mapper_args__ = {"polymorphic_identity": "car"}


class Shape(ConcreteBase, Base):
    """Concrete-table inheritance, read as a union."""

    __tablename__ = "shape"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_identity": "shape", "concrete": True}


class Circle(Shape):
    __tablename__ = "circle"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    radius: Mapped[int] = mapped_column(default=1)
    changes: Mapped[int] = mapped_column(default=0, onupdate=sqlalchemy.text("changes + 1"))
    __mapper_args__ = {"polymorphic_identity": "circle", "concrete": True}


class Named(BaseModel):
    id: Annotated[int, ReadOnly]
    name: str


class DogOut(Named):
    tricks: Annotated[int, ReadOnly]
    doubled: Annotated[int, ReadOnly]


joined_team = select(Person).outerjoin(Person.team).options(contains_eager(Person.team))
SOURCES: dict[str, tuple[Any, Any]] = {
    "subclass through its base": (Person, lambda: Manager(name="one")),
    "base of a subclass": (Person, lambda: Person(name="one", kind="person")),
    "subclass": (Manager, lambda: Manager(name="one", team=Team(name="a"))),
    "loaded with it": (select(Person).options(joinedload(Person.team)), lambda: Manager(name="one")),
    "outer join": (joined_team, lambda: Person(name="one", kind="person")),
    "outer join, there": (joined_team.where(Team.name == "a"), lambda: Manager(name="one", team=Team(name="a"))),
    "distinct": (select(Person).distinct(), lambda: Manager(name="one")),
    "subclass loaded by itself": (Animal, lambda: Dog(name="one")),
    "its own": (Dog, lambda: Dog(name="one")),
    "one table": (Vehicle, lambda: Car(name="one")),
    "one table, its own": (Car, lambda: Car(name="one")),
    "concrete": (Circle, lambda: Circle(name="one")),
    "concrete through its base": (Shape, lambda: Circle(name="one")),
}


@contextlib.asynccontextmanager
async def engine_of(kind: str, path: Path) -> AsyncIterator[AsyncEngine]:
    if kind == "sqlite":
        async with shelves.sqlite(path, Base.metadata) as engine:
            yield engine
        return
    async with shelves.postgres(Base.metadata) as found:
        if found is None:
            pytest.skip(f"no PostgreSQL answers at {shelves.POSTGRES}; set WSACTION_TEST_POSTGRES_URL")
        yield found


@pytest.mark.parametrize("narrowed", [True, False], ids=["narrowed", "all"])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_subclass_rows_are_changed_shown_and_deleted(kind: str, narrowed: bool, tmp_path: Path) -> None:
    async with engine_of(kind, tmp_path) as engine:
        sessions = async_sessionmaker(engine)
        for name, (source, make) in SOURCES.items():
            async with sessions.begin() as session:
                made = make()
                session.add(made)
                await session.flush()
                key = made.id

            class Things(ModelAPIActionHandler):
                queryset, serializer_class = SQLAlchemyQuerySet(source, sessions), Named

                def get_queryset(self) -> Any:
                    found = super().get_queryset()
                    return found.filter(name__in=["one", "two"]) if narrowed else found

            async with talking(Things.as_aaah(), f"/{key}/", at="<int:pk>/", debug=True) as ws:
                for action in ("retrieve", "partial_update", "update"):
                    data = {} if action == "retrieve" else {"data": {"name": "two"}}
                    reply = await ws.call(action, **data)
                    assert reply["status"] == 200, (name, action, reply)
                assert reply["data"] == {"id": key, "name": "two"}
                reply = await ws.call("destroy")
                assert reply["status"] == 204, (name, "destroy", reply)
                assert (await ws.call("retrieve"))["status"] == 404


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_computed_columns_of_a_subclass_are_shown_after_changes(kind: str, tmp_path: Path) -> None:
    async with engine_of(kind, tmp_path) as engine:
        dogs = SQLAlchemyQuerySet(Dog, async_sessionmaker(engine))

        class Dogs(ModelAPIActionHandler):
            queryset, serializer_class = dogs, DogOut

            async def perform_update(self, obj: Any, values: Any) -> Any:
                return await super().perform_update(obj, {**values, "tricks": Dog.tricks + 1})

        async with talking(Dogs.as_aaah(), "/1/", at="<int:pk>/", debug=True) as ws:
            assert (await ws.call("create", data={"name": "a"}))["data"] == {
                "id": 1,
                "name": "a",
                "tricks": 1,
                "doubled": 2,
            }
            assert (await ws.call("partial_update", data={"name": "b"}))["data"]["doubled"] == 4


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_subclass_row_changed_through_its_base_is_complete(kind: str, tmp_path: Path) -> None:
    async with engine_of(kind, tmp_path) as engine:
        sessions = async_sessionmaker(engine)
        async with sessions.begin() as session:
            session.add_all([Manager(name="one"), Dog(name="one"), Car(name="one"), Circle(name="one")])
        for base, expected in (
            (Person, {"budget": 5, "changes": 0}),  # the base class's table is not updated
            (Animal, {"tricks": 1, "doubled": 2}),
            (Vehicle, {"doors": 4, "checked": 1, "version": 2}),
            (Shape, {"radius": 1, "changes": 1}),
        ):
            things = SQLAlchemyQuerySet(base, sessions)
            thing = await things.update(await things.get(), {"name": "two"})
            assert {name: getattr(thing, name) for name in expected} == expected
