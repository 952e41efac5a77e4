"""Live: chat rooms with who is there, and notes whose lists are live."""

from typing import Annotated

from pydantic import BaseModel, Field

from wsaction import (
    AsyncAPIActionHandler,
    AsyncAPIConsumer,
    BearerAuthentication,
    Credential,
    IsOwner,
    MemoryQuerySet,
    ModelAPIActionHandler,
    PresenceMixin,
    ReadOnly,
    SimpleRouter,
    SubscribeMixin,
    WSAction,
    async_action,
    path,
)
from wsaction.exceptions import NotAuthenticated


class User:
    """A user; their token is their name."""

    is_authenticated = True

    def __init__(self, name: str) -> None:
        self.id = name


class TokenAuthentication(BearerAuthentication):
    """Lets ada and grace in by their names."""

    def verify(self, token: str) -> Credential:
        if token not in ("ada", "grace"):
            raise NotAuthenticated("Sign in as ada or grace.")
        return Credential(User(token))


class Message(BaseModel):
    author: str
    text: str = Field(max_length=2_000)


class ChatRoom(PresenceMixin, AsyncAPIActionHandler):  # SubscribeMixin, and who is there
    """A room of a chat."""

    events = {"said": Message}

    @async_action
    async def say(self, text: str, author: str = "somebody") -> None:
        await self.publish("said", Message(author=author, text=text))


class Note(BaseModel):
    id: Annotated[int, ReadOnly]
    owner_id: str
    text: str


class IsMine(IsOwner):
    """Asked for each recipient of each event."""

    lookup_field = "owner_id"


class NoteHandler(SubscribeMixin, ModelAPIActionHandler[Note]):
    """Notes. Every user sees their own."""

    queryset = MemoryQuerySet(Note)
    serializer_class = Note
    permission_classes = (IsMine,)


class Root(AsyncAPIConsumer):
    """The consumer."""

    router = SimpleRouter()
    router.register("notes", NoteHandler)
    routepatterns = [path("rooms/<slug:name>/", ChatRoom.as_aaah()), *router.urls]


app = WSAction([path("ws/", Root.as_asgi())], authentication_classes=[TokenAuthentication], title="Live")
