"""What clients see and may write. A field that is ``ReadOnly`` is never taken from a client."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from wsaction.serializers import ReadOnly

Title = Annotated[str, Field(min_length=1, max_length=120)]


class Person(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str


class SignedIn(BaseModel):
    """Who signed in, and the token to say so with from now on."""

    token: str
    user: Person


class Board(BaseModel):
    id: Annotated[int, ReadOnly]
    title: Title
    owner_id: Annotated[int, ReadOnly]
    members: Annotated[list[Person], ReadOnly]


class Column(BaseModel):
    id: Annotated[int, ReadOnly]
    title: Title


class Card(BaseModel):
    id: Annotated[int, ReadOnly]
    column_id: Annotated[int, ReadOnly]
    position: Annotated[int, ReadOnly]
    title: Title
    notes: str = Field("", max_length=2_000)
    comment_count: Annotated[int, ReadOnly]


class NewCard(BaseModel):
    """A card as it is made: at the end of a column."""

    column_id: int
    title: Title
    notes: str = Field("", max_length=2_000)


class Move(BaseModel):
    """Where a card goes: before another card of a column; at its end where that is null, or there no more."""

    column_id: int
    before: int | None = None


class Moved(BaseModel):
    """Who moved which card where, for those who look on; the card itself is told as ``updated``."""

    card_id: int
    column_id: int
    by: Person


class Comment(BaseModel):
    id: Annotated[int, ReadOnly]
    author: Annotated[Person, ReadOnly]
    text: str = Field(min_length=1, max_length=2_000)
    written_at: Annotated[int, ReadOnly]  # unix seconds
