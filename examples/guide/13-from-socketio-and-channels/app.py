"""A chat ported from Socket.IO, and one ported from a consumer of Channels."""

from collections import defaultdict, deque
from typing import Annotated

from pydantic import BaseModel, Field

from wsaction.applications import WSAction
from wsaction.authentication import BearerAuthentication, Credential
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import NotAuthenticated
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.permissions import AllowAny, IsAuthenticated
from wsaction.presence import PresenceMixin
from wsaction.routing import path

Text = Annotated[str, Field(min_length=1, max_length=2_000)]


class Message(BaseModel):
    author: str
    text: Text


class User:
    is_authenticated = True

    def __init__(self, id: str) -> None:
        self.id = id


class Tokens(BearerAuthentication):
    """The token is the user's name. A real app verifies a signature here."""

    def verify(self, token: str) -> Credential:
        if token not in ("ada", "grace"):
            raise NotAuthenticated("There is no such user.")
        return Credential(User(token))


LAST: defaultdict[str, deque[Message]] = defaultdict(lambda: deque(maxlen=50))


class Room(PresenceMixin, AsyncAPIActionHandler):
    """A room. Whoever is subscribed to it gets what is said, and who joins and leaves."""

    permission_classes = (IsAuthenticated,)
    events = {"said": Message}

    @async_action
    async def retrieve(self) -> list[Message]:
        """Returns the last messages; `subscribe` with a snapshot returns them too."""
        return list(LAST[self.kwargs["name"]])

    @async_action
    async def say(self, text: Text) -> Message:
        message = Message(author=self.user.id, text=text)
        LAST[self.kwargs["name"]].append(message)
        await self.publish("said", message, exclude_self=True)
        return message  # the reply is what the acknowledgement was


class Chat(AsyncAPIConsumer):
    routepatterns = [path("rooms/<slug:name>/", Room.as_aaah())]


class ChatConsumer(AsyncAPIConsumer):
    """One room for each connection, named in its path: the group of a Channels consumer."""

    permission_classes = (AllowAny,)
    group_send_lookup_kwargs = "room"

    @async_action(mode="broadcast", broadcast_type="chat.message", send_response_in_broadcast=False)
    async def say(self, message: str) -> dict[str, str]:
        return {"message": message}

    async def chat_message(self, event: dict[str, dict[str, str]]) -> None:
        await self.send_json({"message": event["data"]["message"]})


app = WSAction(
    [path("ws/", Chat.as_asgi()), path("ws/chat/<slug:room>/", ChatConsumer.as_asgi())],
    authentication_classes=[Tokens],
    allowed_origins=["https://chat.example.com"],
)
