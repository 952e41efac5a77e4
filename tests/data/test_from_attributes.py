"""`wsaction.serializers._from_attributes`: objects are shown with the fields of the model and no others."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, computed_field
from sqlmodel import Field as Column
from sqlmodel import SQLModel

from tests.support.driving import ask, talking
from wsaction.decorators import async_action
from wsaction.generics import ModelAPIActionHandler
from wsaction.querysets import MemoryQuerySet
from wsaction.serializers._from_attributes import as_output, many_as_output


class UserOut(BaseModel):
    id: int
    name: str = Field(alias="Name")
    _seen: int = PrivateAttr(1)

    @computed_field
    def seen(self) -> int:
        return self._seen


class UserInDB(UserOut):
    password: str = "secret"
    _salt: str = PrivateAttr("salt")


def stored() -> UserInDB:
    user = UserInDB(id=1, Name="Ada")
    user._seen = 7
    return user


@pytest.mark.parametrize("shown", [as_output(UserOut, stored()), many_as_output(UserOut, [stored()])[0]])
def test_attributes_of_a_subclass_are_left_out(shown: Any) -> None:
    assert type(shown) is UserOut
    assert shown.model_dump() == {"id": 1, "name": "Ada", "seen": 7}
    assert shown.model_fields_set == {"id", "name"}
    assert shown == shown.model_copy(deep=True)
    assert not hasattr(shown, "_salt")


def test_an_instance_of_the_model_is_returned_as_it_is() -> None:
    user = UserOut(id=1, Name="Ada")
    assert as_output(UserOut, user) is user
    assert many_as_output(UserOut, [user, stored()])[0] is user
    assert many_as_output(UserOut, []) == []


def test_extras_are_kept_if_the_model_allows_them() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")

    class Child(Open):
        more: int = 1

    assert as_output(Open, Child.model_validate({"x": 2})).model_dump() == {"x": 2}


def test_a_coroutine_that_was_not_awaited_is_an_error() -> None:
    async def get_object() -> None: ...

    with pytest.raises(TypeError, match=r"UserOut shows an object, .*get_object\(\); did you forget `await`\?"):
        as_output(UserOut, get_object())


def test_a_table_is_shown_as_the_model_that_it_extends() -> None:
    class HeroBase(SQLModel):
        name: str

    class ShownHero(HeroBase, table=True):
        id: int | None = Column(default=None, primary_key=True)
        secret: str = "x"

    assert as_output(HeroBase, ShownHero(name="a")).model_dump() == {"name": "a"}


def test_objects_without_the_attributes_are_an_error() -> None:
    with pytest.raises(ValidationError):
        as_output(UserOut, 5)
    with pytest.raises(ValidationError):
        many_as_output(UserOut, [5])


class Users(ModelAPIActionHandler):
    queryset = MemoryQuerySet(UserInDB, rows=[UserInDB(id=1, Name="Ada")])
    serializer_class = UserOut

    @async_action
    async def me(self) -> Any:
        return self.serialize(await self.get_object())


class Deciding(Users):
    def get_serializer_class(self) -> type[BaseModel]:
        return UserOut


@pytest.mark.parametrize("handler", [Users, Deciding])
@pytest.mark.parametrize(
    "frame",
    [
        {"action": "retrieve"},
        {"action": "list"},
        {"action": "partial_update", "data": {}},
        {"action": "me"},
    ],
    ids=str,
)
async def test_actions_show_only_fields_of_the_serializer(handler: Any, frame: dict[str, Any]) -> None:
    reply = await ask(handler.as_aaah(), pk=1, **frame)
    assert reply["status"] == 200
    assert "Ada" in json.dumps(reply)
    assert "secret" not in json.dumps(reply)


@pytest.mark.parametrize("handler", [Users, Deciding])
async def test_streams_show_only_fields_of_the_serializer(handler: Any) -> None:
    async with talking(handler.as_aaah()) as ws:
        await ws.send_json({"action": "list", "route": "", "stream": True})
        assert (await ws.receive_json())["data"] == [{"id": 1, "name": "Ada", "seen": 1}]
