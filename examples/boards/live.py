"""The app with the socket and all its routes. It can be served alone; `app` adds the page."""

import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from examples.boards import models
from examples.boards.handlers import BoardHandler, MyBoardsHandler
from examples.boards.sample import fill
from examples.boards.sign_in import TokenAuthentication, authenticate, create_token
from examples.boards.tables import database
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.limits import Limits
from wsaction.permissions import AllowAny, IsAuthenticated
from wsaction.routing import path
from wsaction.throttling import AnonRateThrottle


class Root(AsyncAPIConsumer):
    """The root of each connection: signing in, and the routes to the boards."""

    permission_classes = (AllowAny,)  # anyone may sign in; the handlers below require more
    limits = Limits(max_outbox_bytes=4_194_304)  # enough for 300 cards of 2,000 characters of 4 bytes
    routepatterns = [
        path("users/<int:user>/boards/", MyBoardsHandler.as_aaah()),
        path("boards/<int:board>/", BoardHandler.as_aaah()),
    ]

    @async_action(throttle_classes=(AnonRateThrottle("30/min"),))
    async def sign_in(self, name: str, password: str) -> models.SignedIn:
        """Returns a token for the handshake or for `$auth`. The password of each sample user is their name."""
        user = await authenticate(name, password)
        return models.SignedIn(token=create_token(user), user=models.Person.model_validate(user))

    @async_action(permission_classes=(IsAuthenticated,))
    async def whoami(self) -> models.Person:
        """Returns the user of this connection."""
        return models.Person.model_validate(self.user)


def database_url() -> str:
    """The URL of the SQLite database: the file ``BOARDS_DB``, or a file in the directory for temporary files."""
    return f"sqlite+aiosqlite:///{os.environ.get('BOARDS_DB') or Path(tempfile.gettempdir()) / 'wsaction-boards.db'}"


@asynccontextmanager
async def lifespan(app: WSAction) -> AsyncGenerator[None]:
    async with database(database_url()):
        await fill()
        yield


live = WSAction(
    [path("ws/", Root.as_asgi())],
    authentication_classes=[TokenAuthentication],
    accept_refused=True,  # so that the page learns why it is refused
    lifespan=lifespan,
    title="Boards",
    description="A shared kanban board. Call `sign_in` with name and password `ada`, then sign in with the token.",
)
