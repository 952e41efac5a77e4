"""The models that clients read and write. A ``ReadOnly`` field is never taken from a client."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from wsaction.serializers import ReadOnly

Title = Annotated[str, Field(min_length=1, max_length=120)]


class Person(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str


class SignedIn(BaseModel):
    """The user who signed in, and a token for later connections."""

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
    """A new card, which is added at the end of a column."""

    column_id: int
    title: Title
    notes: str = Field("", max_length=2_000)


class Move(BaseModel):
    """The destination of a card: before another card of a column, or at its end if ``before`` is null or gone."""

    column_id: int
    before: int | None = None


class Moved(BaseModel):
    """An event for other viewers: who moved which card to which column. The card itself follows as ``updated``."""

    card_id: int
    column_id: int
    by: Person


class Comment(BaseModel):
    id: Annotated[int, ReadOnly]
    author: Annotated[Person, ReadOnly]
    text: str = Field(min_length=1, max_length=2_000)
    written_at: Annotated[int, ReadOnly]  # unix seconds
