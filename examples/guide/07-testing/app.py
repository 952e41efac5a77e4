"""Notes with owners, to be tested: permissions, events, a dependency, a throttle and a time limit."""

import asyncio
from typing import Annotated, Protocol

from pydantic import BaseModel, Field

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dependencies import Depends
from wsaction.generics import ModelAPIActionHandler
from wsaction.limits import Limits
from wsaction.permissions import IsAuthenticated, IsOwner
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import path
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin
from wsaction.throttling import UserRateThrottle


class Note(BaseModel):
    id: Annotated[int, ReadOnly]
    owner_id: Annotated[int, ReadOnly]
    text: str = Field(min_length=1)


class Mailer(Protocol):
    async def send(self, text: str) -> None: ...


class SlowMailer:
    """Takes its time, as the real ones do."""

    async def send(self, text: str) -> None:
        await asyncio.sleep(60)


def get_mailer() -> Mailer:
    return SlowMailer()


class IsMine(IsOwner):
    lookup_field = "owner_id"


class NoteHandler(SubscribeMixin, ModelAPIActionHandler[Note]):
    queryset = MemoryQuerySet(Note)
    serializer_class = Note
    permission_classes = (IsAuthenticated, IsMine)

    async def perform_create(self, values: dict[str, object]) -> Note:
        note: Note = await super().perform_create({**values, "owner_id": self.user.id})
        return note

    @async_action(detail=True, throttle_classes=(UserRateThrottle("2/min", scope="mail"),))
    async def mail(self, mailer: Annotated[Mailer, Depends(get_mailer)]) -> None:
        """Sends a note to its owner."""
        note = await self.get_object()
        await mailer.send(note.text)


router = SimpleRouter()
router.register("notes", NoteHandler)


class Notes(AsyncAPIConsumer):
    routepatterns = router.urls


def make_app(limits: Limits | None = None) -> WSAction:
    """A new app. Tests give it limits of their own."""
    return WSAction([path("ws/", Notes.as_asgi())], limits=limits or Limits())


app = make_app()
