"""An app whose users sign in with bearer tokens."""

import asyncio
import threading
import time

from tests.support.scripted import WAIT
from wsaction.applications import WSAction
from wsaction.authentication import BearerAuthentication, Credential
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import NotAuthenticated
from wsaction.limits import Limits
from wsaction.permissions import IsAuthenticated
from wsaction.routing import path


class User:
    is_authenticated = True

    def __init__(self, id: str) -> None:
        self.id = id


class Tokens(BearerAuthentication):
    """Accepts tokens of the form ``name-number``; those named ``short`` are valid for 4 s."""

    first_frame = True
    seen: list[str] = []
    shown = threading.Condition()

    @classmethod
    async def until_seen(cls, count: int) -> None:
        def wait() -> bool:
            with cls.shown:
                return cls.shown.wait_for(lambda: len(cls.seen) >= count, WAIT)

        assert await asyncio.to_thread(wait)

    def verify(self, token: str) -> Credential:
        with self.shown:
            self.seen.append(token)
            self.shown.notify_all()
        if token.startswith("bad"):
            raise NotAuthenticated("This token is not valid.")
        expires = time.time() + 4.0 if token.startswith("short") else None
        return Credential(User("ada"), expires_at=expires)


class Me(AsyncAPIConsumer):
    permission_classes = (IsAuthenticated,)

    @async_action
    async def whoami(self) -> str:
        return self.user.id


def guarded_app() -> WSAction:
    Tokens.seen.clear()
    return WSAction([path("ws/", Me.as_asgi())], authentication_classes=[Tokens], limits=Limits(auth_timeout=5))
