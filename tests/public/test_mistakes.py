"""Deliberate mistakes of a new user: what they wrote, when they are told, and the message. No mistake is silent.

``MISTAKES`` is the table. A row's source is the part of a module that a user writes; the test writes the module, with
the imports above it and, where the source makes none, a consumer and an app below it. ``guards`` marks a mistake about
access: its test also shows that no endpoint is open.

The module is long because it is one thing: the table.
"""
# ruff: noqa: E501  # a message stands on one line, as a user reads it

import importlib.util
import itertools
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest
from click.testing import CliRunner

from wsaction.cli import main
from wsaction.testing import HandshakeRefused, connect

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")]

DECLARED = "as it is declared"  # by a call in the user's module: path(), async_action(), Limits(), ...
CLASS = "as the class is created"
MOUNTED = "as it is mounted"  # as_aaah(), as_asgi()
APP = "by WSAction(...)"
CHECK = "by wsaction check, exit 1"
HANDSHAKE = "in the log, as the handshake is refused"
FRAME = "in the reply, or in the log as the first frame fails"

IMPORTS = """
import asyncio
from contextlib import asynccontextmanager
from typing import Annotated, Any
import fastapi
from pydantic import BaseModel
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse
from wsaction.applications import WSAction
from wsaction.authentication import BaseAuthentication, BearerAuthentication, Credential, SessionAuthentication
from wsaction.consumers import AsyncAPIConsumer
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.decorators import async_action
from wsaction.dependencies import Depends
from wsaction.exceptions import APIError, PermissionDenied
from wsaction.filters import FieldFilter, OrderingFilter, SearchFilter
from wsaction.generics import ModelAPIActionHandler
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.hooks import Hooks
from wsaction.layers.redis import RedisLayer
from wsaction.limits import Limits
from wsaction.pagination import CursorPagination, PageNumberPagination
from wsaction.permissions import AllowAny, BasePermission, DenyAll, IsAuthenticated, IsOwner
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import include, path, re_path
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin
from wsaction.throttling import BaseThrottle, ScopedRateThrottle, UserRateThrottle

class Card(BaseModel):
    id: int = 0
    title: str = ""
    owner_id: int = 0

class Base(DeclarativeBase): ...

class Row(Base):
    __tablename__ = "rows"
    id: Mapped[int] = mapped_column(primary_key=True)

cards = MemoryQuerySet(Card, [Card(id=1, title="one", owner_id=7)])

def no_wraps(function):
    async def inner(self, *args, **kwargs):
        return await function(self, *args, **kwargs)
    return inner
"""
CONSUMER = """
class Root(AsyncAPIConsumer):
    permission_classes = (AllowAny,)
    routepatterns = [path("cards/", Cards.as_aaah()), path("cards/<pk>/", Cards.as_aaah())]
"""
MAKE_APP = """
app = WSAction([path("ws/", Root.as_asgi())], allowed_hosts=["testserver"])
"""


@dataclass(frozen=True)
class Mistake:
    """A row of the table. ``frame`` is what a client sends: an action, a route, and other keys."""

    name: str
    told: str
    message: str  # a part of it
    source: str
    frame: tuple[str, str, dict[str, Any]] = ("retrieve", "cards/1/", {})
    guards: bool = False


def handler(name: str, told: str, message: str, body: str, *frame: Any, guards: bool = False) -> Mistake:
    """A mistake in the body of a generic handler, ``Cards``."""
    head = "class Cards(ModelAPIActionHandler):\n    queryset = cards\n    serializer_class = Card\n"
    return Mistake(name, told, message, head + indent(dedent(body), "    "), _frame(frame), guards)


def consumer(name: str, told: str, message: str, body: str, *frame: Any, guards: bool = False) -> Mistake:
    """A mistake in the body of a consumer, ``Root``."""
    sent = _frame(frame or ("act", ""))
    return Mistake(name, told, message, f"class Root(AsyncAPIConsumer):\n{indent(dedent(body), '    ')}", sent, guards)


def permission(name: str, told: str, message: str, body: str, *, guards: bool = True) -> Mistake:
    """A mistake in the body of a permission, ``May``, of the handler ``Cards``."""
    source = f"""class May(BasePermission):\n{indent(dedent(body), "    ")}
class Cards(ModelAPIActionHandler):
    queryset = cards
    serializer_class = Card
    permission_classes = (May,)
"""
    return Mistake(name, told, message, source, guards=guards)


def module(name: str, told: str, message: str, source: str, *frame: Any, guards: bool = False) -> Mistake:
    """A mistake anywhere in a module."""
    return Mistake(name, told, message, dedent(source), _frame(frame), guards)


def _frame(frame: Any) -> tuple[str, str, dict[str, Any]]:
    action, route, keys = (*frame, *("retrieve", "cards/1/", {})[len(frame) :])
    return action, route, keys


# fmt: off
MISTAKES: list[Mistake] = [
    # -------------------------------------------------------------------------------------------- permission classes
    permission("has_permision", CLASS, "May.has_permision is an attribute that nothing reads; did you mean 'has_permission'?",
        "def has_permision(self, scope, handler, action): return False"),
    permission("hasPermission", CLASS, "did you mean 'has_permission'?",
        "def hasPermission(self, scope, handler, action): return False"),
    permission("has_obj_permission", CLASS, "did you mean 'has_object_permission'?",
        "def has_obj_permission(self, scope, handler, action, obj): return False"),
    permission("a permission that answers no question", MOUNTED, "expected May to define can_connect, has_permission",
        "def allow(self, scope, handler, action): return False"),
    permission("DRF's has_permission(request, view)", MOUNTED, "expected May.has_permission to be callable with (scope, handler, action)",
        "def has_permission(self, request, view): return False"),
    permission("an async has_permission that forgets return", CLASS, "May.has_permission returns nothing, whatever it is asked; did you forget `return`?",
        "async def has_permission(self, scope, handler, action): scope['user'].is_authenticated"),
    permission("raises to refuse, and returns nothing to allow", CLASS, "May.has_permission returns nothing",
        """
        def has_permission(self, scope, handler, action):
            if not scope["user"].is_authenticated:
                raise PermissionDenied
        """),
    permission("yields its answer", MOUNTED, "it is a generator, which is always true",
        "def has_permission(self, scope, handler, action): yield False"),
    permission("returns a function instead of its result", FRAME, "which is always true; return True or False, and call functions",
        """
        def answer(self): return False
        def has_permission(self, scope, handler, action): return self.answer
        """),
    permission("returns False with a reason", FRAME, "returned (False, 'no'), which is always true",
        "def has_permission(self, scope, handler, action): return False, 'no'"),
    permission("can_connect alone, on a handler", MOUNTED, "got can_connect alone, which only consumers ask",
        "def can_connect(self, scope, handler): return False"),
    module("a permission of DRF", MOUNTED, "derive it from BasePermission", """
        class May:
            def has_permission(self, request, view): return False
        class Cards(ModelAPIActionHandler):
            queryset = cards
            serializer_class = Card
            permission_classes = (May,)
        """, guards=True),
    module("a permission function that forgets return", MOUNTED, "may returns nothing, so that it refuses everyone; return True or False", """
        def may(scope, handler, action): scope["user"].is_authenticated
        class Cards(ModelAPIActionHandler):
            queryset = cards
            serializer_class = Card
            permission_classes = (may,)
        """, guards=True),
    # -------------------------------------------------------------------------------------------- permission_classes
    handler("permission_classes = IsAuthenticated", MOUNTED, "expected a tuple or list of permissions, got IsAuthenticated; did you forget the comma?",
        "permission_classes = IsAuthenticated", guards=True),
    handler("permission_classes = (IsAuthenticated)", MOUNTED, "did you forget the comma? (IsAuthenticated,) is a tuple",
        "permission_classes = (IsAuthenticated)", guards=True),
    handler("a permission's name as a string", MOUNTED, "got 'IsAuthenticated'; name the class itself, without quotes",
        "permission_classes = ('IsAuthenticated',)", guards=True),
    handler("A and B", CLASS, "expected '&', '|' or '~', got 'and', 'or', 'not' or 'if'",
        "permission_classes = (IsAuthenticated and IsOwner,)", guards=True),
    handler("not A", CLASS, "expected '&', '|' or '~', got 'and', 'or', 'not' or 'if'",
        "permission_classes = (not IsAuthenticated,)", guards=True),
    handler("permission_class", CLASS, "did you mean 'permission_classes'?",
        "permission_class = IsAuthenticated", guards=True),
    handler("permissions", MOUNTED, "Cards.permissions holds permissions, but nothing reads it; rename it to permission_classes",
        "permissions = (IsAuthenticated,)", guards=True),
    handler("permission", MOUNTED, "Cards.permission holds permissions, but nothing reads it",
        "permission = IsAuthenticated", guards=True),
    handler("an annotation instead of a value", CLASS, "permission_classes is annotated and has no value",
        "permission_classes: (IsAuthenticated,)", guards=True),
    handler("class Meta", MOUNTED, "Cards.Meta.permission_classes has no effect, because nothing reads it there",
        """
        class Meta:
            permission_classes = (IsAuthenticated,)
        """, guards=True),
    handler("set in __init__", MOUNTED, "Cards.__init__ sets self.permission_classes, which has no effect",
        "def __init__(self): self.permission_classes = (IsAuthenticated,)", guards=True),
    module("a mixin behind the framework's class", CLASS, "put Guard first among the bases", """
        class Guard:
            permission_classes = (IsAuthenticated,)
        class Cards(ModelAPIActionHandler, Guard):
            queryset = cards
            serializer_class = Card
        """, guards=True),
    module("permission_classes among the captures", MOUNTED, "permission_classes would be a capture, which protects nothing", """
        class Cards(AsyncAPIActionHandler): ...
        class Root(AsyncAPIConsumer):
            routepatterns = [path("cards/", Cards.as_aaah(), {"permission_classes": (IsAuthenticated,)})]
        """, guards=True),
    module("as_aaah(permission_class=...)", MOUNTED, "got 'permission_class'; did you mean 'permission_classes'?", """
        class Cards(AsyncAPIActionHandler): ...
        view = Cards.as_aaah(permission_class=(IsAuthenticated,))
        """, guards=True),
    consumer("@async_action(permission_class=...)", DECLARED, "@async_action has no option permission_class",
        """
        @async_action(permission_class=(IsAuthenticated,))
        async def act(self): ...
        """, guards=True),
    consumer("permission_classes on the function, as DRF's decorator", CLASS, "act.permission_classes has no effect on the function; write @async_action(permission_classes=...)",
        """
        @async_action
        async def act(self): ...
        act.permission_classes = (IsAuthenticated,)
        """, guards=True),
    handler("login_required = True", CLASS, "Cards.login_required has no effect, because nothing reads it; set permission_classes",
        "login_required = True", guards=True),
    handler("permission_required", CLASS, "Cards.permission_required has no effect",
        "permission_required = 'cards.change'", guards=True),
    handler("has_permission on the handler", CLASS, "Cards.has_permission has no effect, because nothing calls it",
        "def has_permission(self, scope, handler, action): return False", guards=True),
    handler("Django's has_permission(self) on the handler", CLASS, "Cards.has_permission has no effect, because nothing reads it",
        "def has_permission(self): return False", guards=True),
    handler("get_permission_classes", CLASS, "Cards.get_permission_classes has no effect",
        "def get_permission_classes(self): return [DenyAll]", guards=True),
    handler("get_permission", CLASS, "did you mean 'get_permissions'?",
        "def get_permission(self): return [DenyAll]", guards=True),
    handler("an async get_permissions", CLASS, "Cards.get_permissions must be a plain def, got an async def",
        "async def get_permissions(self): return [DenyAll]", guards=True),
    handler("get_permissions forgets return", CLASS, "Cards.get_permissions returns nothing",
        "def get_permissions(self): print(DenyAll)", guards=True),
    handler("check_permissions returns False", FRAME, "Cards.check_permissions() returned False; raise PermissionDenied to refuse",
        "async def check_permissions(self): return False", guards=True),
    handler("check_permissions(request)", CLASS, "expected the parameters (self), got (self, request)",
        "def check_permissions(self, request): raise PermissionDenied", guards=True),
    handler("check_permissions is a def that returns nothing", FRAME, "NoneType can't be used in 'await' expression",
        "def check_permissions(self): return None", guards=True),
    module("IsOwner.check_actions is a string", CLASS, "expected '__all__' or a tuple of action names", """
        class Mine(IsOwner):
            check_actions = "update"
        """, guards=True),
    module("IsOwner.check_actions names no action", MOUNTED, "got 'udpate', which guards nothing; did you mean 'update'?", """
        class Mine(IsOwner):
            check_actions = ("udpate",)
        class Cards(ModelAPIActionHandler):
            queryset = cards
            serializer_class = Card
            permission_classes = (Mine,)
        """, guards=True),
    handler("IsOwner of objects without a user", FRAME, "IsOwner: expected the attribute user, got Card, which has none; set lookup_field",
        "permission_classes = (IsOwner,)", guards=True),
    module("an own get_object() without the check of the object", FRAME, "You do not have permission to do this.", """
        class Mine(IsOwner):
            lookup_field = "owner_id"
        class Cards(ModelAPIActionHandler):
            queryset = cards
            serializer_class = Card
            permission_classes = (Mine,)
            async def get_object(self): return await self.queryset.get(pk=self.kwargs["pk"])
        """, guards=True),
    module("an object permission that nothing checks", CHECK, "Cards has only object permissions, but no get_object() that checks them", """
        class Cards(AsyncAPIActionHandler):
            permission_classes = (IsOwner,)
            @async_action
            async def rename(self, pk: int): ...
        """),
    module("check_object_permissions() without await", FRAME, "check_object_permissions() is awaited by nobody, so that it refuses nothing", """
        class May(BasePermission):
            async def has_object_permission(self, scope, handler, action, obj): return False
        class Cards(AsyncAPIActionHandler):
            permission_classes = (May,)
            @async_action
            async def retrieve(self, pk: int):
                self.check_object_permissions(await cards.get(pk=pk))
        """, guards=True),
    # ------------------------------------------------------------------------- settings of the app, hooks of elsewhere
    handler("authentication_classes on a handler", CLASS, "it is a setting of the app: WSAction([...], authentication_classes=...)",
        "authentication_classes = (SessionAuthentication,)", guards=True),
    consumer("allowed_origins on a consumer", CLASS, "it is a setting of the app: WSAction([...], allowed_origins=...)",
        "allowed_origins = ['https://example.com']", guards=True),
    handler("middleware on a handler", CLASS, "Cards.middleware has no effect, because nothing calls it",
        "middleware = [print]", guards=True),
    handler("debug on a handler", CLASS, "it is a setting of the app: WSAction([...], debug=True)",
        "debug = True"),
    handler("hooks on a handler", CLASS, "it is a setting of the app: WSAction([...], hooks=[...])",
        "hooks = [Hooks()]"),
    handler("FastAPI's dependencies", CLASS, "Cards.dependencies has no effect, because nothing calls it",
        "dependencies = [fastapi.Depends(print)]", guards=True),
    handler("http_method_names", CLASS, "list the actions of a route: as_aaah(actions=('list', 'retrieve'))",
        "http_method_names = ['get']", guards=True),
    handler("connect() on a handler", MOUNTED, "Cards.connect has no effect: only the root of the connection may set it",
        "async def connect(self): raise PermissionDenied", guards=True),
    consumer("conect", CLASS, "did you mean 'connect'?",
        "async def conect(self): raise PermissionDenied", guards=True),
    consumer("Starlette's on_connect(websocket)", CLASS, "Root.on_connect has no effect, because nothing calls it",
        "async def on_connect(self, websocket): raise PermissionDenied", guards=True),
    consumer("Socket.IO's on_connect(sid, environ)", CLASS, "Root.on_connect has no effect, because nothing reads it",
        "async def on_connect(self, sid, environ): return False", guards=True),
    consumer("Channels' websocket_connect(event)", CLASS, "Root.websocket_connect has no effect",
        "async def websocket_connect(self, event): raise PermissionDenied", guards=True),
    consumer("Channels' receive_json(content)", CLASS, "Root.receive_json has no effect, because nothing calls it",
        "async def receive_json(self, content): ..."),
    consumer("Channels' self.accept()", HANDSHAKE, "'Root' object has no attribute 'accept'",
        "async def connect(self): await self.accept()"),
    consumer("connect() returns False", HANDSHAKE, "Root.connect() returned False; raise PermissionDenied to refuse",
        "async def connect(self): return False", guards=True),
    consumer("connect() closes without await", HANDSHAKE, "Root.connect called AsyncAPIActionHandler.close() without `await`",
        "async def connect(self): self.close(4403)", guards=True),
    consumer("connect() is a def", CLASS, "Root.connect: expected an async def, got a def that returns nothing to await",
        "def connect(self): print(self.user)", guards=True),
    consumer("connect(scope)", CLASS, "expected the parameters (self), got (self, scope)",
        "async def connect(self, scope): raise PermissionDenied", guards=True),
    # ------------------------------------------------------------------------------------------------------- the app
    module("WSAction(permission_classes=...)", APP, "WSAction() has no setting 'permission_classes'; set it on the consumers",
        "app = WSAction([], permission_classes=(IsAuthenticated,))", guards=True),
    module("WSAction(authentication_class=...)", APP, "no setting 'authentication_class'; did you mean 'authentication_classes'?",
        "app = WSAction([], authentication_class=SessionAuthentication)", guards=True),
    module("WSAction(allow_origins=...)", APP, "no setting 'allow_origins'; did you mean 'allowed_origins'?",
        "app = WSAction([], allow_origins=['https://example.com'])", guards=True),
    module("authentication_classes is a class", APP, "authentication_classes: expected a list",
        "app = WSAction([], authentication_classes=SessionAuthentication)", guards=True),
    module("an origin without scheme", APP, "expected '*', 'scheme://host[:port]' or 'scheme://*.name[:port]' in allowed_origins, got 'example.com'",
        "app = WSAction([], allowed_origins=['example.com'])", guards=True),
    module("allowed_origins='*'", APP, "allowed_origins: expected a list of strings such as ['https://a.example'], got '*'",
        "app = WSAction([], allowed_origins='*')", guards=True),
    module("an origin with a slash", APP, "leave out path, trailing slash and user",
        "app = WSAction([], allowed_origins=['https://example.com/'])", guards=True),
    module("allowed_hosts is a string", APP, "allowed_hosts: expected a list of strings such as ['example.com']",
        "app = WSAction([], allowed_hosts='example.com')", guards=True),
    module("a host with its port", APP, "leave out scheme, port and path",
        "app = WSAction([], allowed_hosts=['example.com:8000'])", guards=True),
    module("user_id='email'", APP, "expected a function, as in lambda user: user.email, got 'email'",
        "app = WSAction([], user_id='email')"),
    module("Starlette's middleware", APP, "middleware: expected functions like `async def mw(handler, call_next)`",
        "app = WSAction([], middleware=[SessionMiddleware])", guards=True),
    module("middleware that returns nothing", APP, "mw returns nothing, so that all replies would have no data", """
        async def mw(handler, call_next): await call_next(handler)
        app = WSAction([], middleware=[mw])
        """),
    module("middleware that does not await", FRAME, "the middleware mw called call_next() and did not await it", """
        async def mw(handler, call_next): return call_next(handler)
        class Root(AsyncAPIConsumer):
            @async_action
            async def act(self): ...
        app = WSAction([path("ws/", Root.as_asgi())], middleware=[mw])
        """, "act", "", guards=True),
    module("a lifespan without @asynccontextmanager", APP, "expected a function with @asynccontextmanager", """
        async def lifespan(app): yield
        app = WSAction([], lifespan=lifespan)
        """),
    module("a layer's URL", APP, """expected an object like RedisLayer("redis://localhost"), got 'redis://localhost'""",
        "app = WSAction([], layer='redis://localhost')"),
    module("the class of hooks", APP, "hooks: expected a list of instances of Hooks, as in [Metrics()]",
        "app = WSAction([], hooks=[Hooks])"),
    module("an exception handler of a status", APP, "exception_handlers: expected subclasses of Exception as keys, got 404",
        "app = WSAction([], exception_handlers={404: print})"),
    module("Limits(max_frame_byte=...)", DECLARED, "Limits() has no limit 'max_frame_byte'; did you mean 'max_frame_bytes'?",
        "limits = Limits(max_frame_byte=1)", guards=True),
    module("Limits(action_timeout=-1)", DECLARED, "Limits.action_timeout must be a number of seconds above 0, not -1",
        "limits = Limits(action_timeout=-1)"),
    module("an authentication class that is misspelt", CLASS, "did you mean 'authenticate'?", """
        class Tokens(BaseAuthentication):
            async def autenticate(self, scope): return None
        """, guards=True),
    module("an authentication class that forgets return", CLASS, "Tokens.authenticate returns nothing", """
        class Tokens(BaseAuthentication):
            async def authenticate(self, scope): Credential("ada")
        """, guards=True),
    module("DRF's authenticate() with a tuple", HANDSHAKE, "T.authenticate: expected a Credential or None, got tuple", """
        class T(BaseAuthentication):
            def authenticate(self, request): return "ada", None
        class Root(AsyncAPIConsumer): ...
        app = WSAction([path("ws/", Root.as_asgi())], authentication_classes=[T])
        """, guards=True),
    # -------------------------------------------------------------------------------------------------------- throttles
    handler("a throttle without rate", MOUNTED, "UserRateThrottle: expected a rate, as in rate = '100/min'",
        "throttle_classes = (UserRateThrottle,)", guards=True),
    handler("100/fortnight", DECLARED, "expected a rate such as '100/min' or '10/5s'",
        "throttle_classes = (UserRateThrottle('100/fortnight'),)", guards=True),
    handler("a rate instead of a throttle", MOUNTED, "got '100/min'; as in UserRateThrottle('100/min')",
        "throttle_classes = ('100/min',)", guards=True),
    handler("throttle_rate", CLASS, "set throttle_classes = (UserRateThrottle('100/min'),)",
        "throttle_rate = '100/min'", guards=True),
    handler("throttles", MOUNTED, "Cards.throttles holds throttles, but nothing reads it; rename it to throttle_classes",
        "throttles = (UserRateThrottle('1/s'),)", guards=True),
    handler("throttle_scope without its throttle", MOUNTED, "Cards.throttle_scope has no effect; add a ScopedRateThrottle",
        "throttle_scope = 'uploads'", guards=True),
    module("DRF's allow_request()", CLASS, "allow_request would never be called; expected wait(scope, handler, action)", """
        class Slow(BaseThrottle):
            def allow_request(self, request, view): return False
        """, guards=True),
    module("get_cache_key() forgets return", CLASS, "Slow.get_cache_key returns nothing", """
        class Slow(UserRateThrottle):
            rate = "1/s"
            def get_cache_key(self, scope, handler, action): str(scope["user"])
        """, guards=True),
    # ------------------------------------------------------------------------------------------------------------ routes
    module("path('ws/', Root)", DECLARED, "The view must be a callable: pass Root.as_asgi(), not Root.", """
        class Root(AsyncAPIConsumer): ...
        app = WSAction([path("ws/", Root)])
        """),
    module("path('ws/', Root())", DECLARED, "pass Root.as_asgi(), not Root().", """
        class Root(AsyncAPIConsumer): ...
        app = WSAction([path("ws/", Root())])
        """),
    module("Root.as_asgi without call", DECLARED, "The view must be what AsyncAPIConsumer.as_asgi() returns: call it.", """
        class Root(AsyncAPIConsumer): ...
        app = WSAction([path("ws/", Root.as_asgi)])
        """),
    module("Cards.as_asgi() of a handler", DECLARED, "Cards has no as_asgi(); a handler is mounted with as_aaah()", """
        class Cards(AsyncAPIActionHandler): ...
        patterns = [path("cards/", Cards.as_asgi())]
        """),
    module("Cards.as_view()", DECLARED, "Cards has no as_view(); a handler is mounted with as_aaah()", """
        class Cards(AsyncAPIActionHandler): ...
        patterns = [path("cards/", Cards.as_view())]
        """),
    module("a consumer below a consumer", MOUNTED, "Cards is a consumer, which has a connection of its own", """
        class Cards(AsyncAPIConsumer): ...
        class Root(AsyncAPIConsumer):
            routepatterns = [path("cards/", Cards.as_asgi())]
        """),
    module("one path() instead of a list", MOUNTED, "Root.routepatterns takes a list, and got one path(); put it in one", """
        class Cards(AsyncAPIActionHandler): ...
        class Root(AsyncAPIConsumer):
            routepatterns = (path("cards/", Cards.as_aaah()))
        """),
    module("urlpatterns", CLASS, "Root.urlpatterns holds patterns, but nothing reads it; rename it to routepatterns", """
        class Cards(AsyncAPIActionHandler): ...
        class Root(AsyncAPIConsumer):
            urlpatterns = [path("cards/", Cards.as_aaah())]
        """),
    module("a leading slash", CHECK, "'/ws/' begins with '/', but the text to match never does", """
        class Root(AsyncAPIConsumer): ...
        app = WSAction([path("/ws/", Root.as_asgi())])
        """),
    module("FastAPI's {pk}", CHECK, "{pk} is plain text here and captures nothing", """
        class Cards(AsyncAPIActionHandler): ...
        class Root(AsyncAPIConsumer):
            routepatterns = [path("cards/{pk}/", Cards.as_aaah())]
        """),
    module("Express's :pk", CHECK, ":pk is plain text here and captures nothing", """
        class Cards(AsyncAPIActionHandler): ...
        class Root(AsyncAPIConsumer):
            routepatterns = [path("cards/:pk/", Cards.as_aaah())]
        """),
    module("a regular expression in path()", CHECK, "is a regular expression, but path() treats it as plain text", """
        class Cards(AsyncAPIActionHandler): ...
        class Root(AsyncAPIConsumer):
            routepatterns = [path(r"^cards/(?P<pk>[0-9]+)/$", Cards.as_aaah())]
        """),
    module("<integer:pk>", DECLARED, "uses the invalid converter 'integer'. Did you mean",
        "pattern = path('cards/<integer:pk>/', print)"),
    module("the same pattern twice", CHECK, "never reached: its pattern is the same as 'cards/', declared before it", """
        class Cards(AsyncAPIActionHandler): ...
        class Root(AsyncAPIConsumer):
            routepatterns = [path("cards/", Cards.as_aaah()), path("cards/", Cards.as_aaah())]
        """),
    module("a capture that is no lookup", CHECK, "Cards looks for its object by pk, but the route captures card_id", """
        class Cards(ModelAPIActionHandler):
            queryset = cards
            serializer_class = Card
        class Root(AsyncAPIConsumer):
            routepatterns = [path("cards/<int:card_id>/", Cards.as_aaah(actions=("retrieve", "destroy")))]
        """),
    module("register(view)", DECLARED, "register() takes a handler class, as in register('cards', CardHandler)", """
        class Cards(AsyncAPIActionHandler): ...
        SimpleRouter().register("cards", Cards.as_aaah())
        """),
    module("a router instead of its urls", MOUNTED, "pass its urls", """
        class Root(AsyncAPIConsumer):
            routepatterns = SimpleRouter()
        """),
    # ----------------------------------------------------------------------------------------------------------- actions
    consumer("an action without decorator", CHECK, "Root has no actions, so clients can call none of act",
        "async def act(self): ..."),
    consumer("@async_action below another decorator", CLASS, "Root.act is no action any more, because another decorator hides it",
        """
        @no_wraps
        @async_action
        async def act(self): ...
        """),
    consumer("@staticmethod", CLASS, "Root.act: expected a method, def or async def, got staticmethod",
        """
        @staticmethod
        @async_action
        async def act(): ...
        """),
    consumer("@async_action('act')", DECLARED, "takes its options by name, as in @async_action(name='act')",
        """
        @async_action('act')
        async def act(self): ...
        """),
    consumer("mode='brodcast'", DECLARED, "is 'response', 'broadcast' or 'none', not 'brodcast'",
        """
        @async_action(mode='brodcast')
        async def act(self): ...
        """),
    consumer("a name with $", CLASS, "does not begin with '$' (reserved for the protocol)",
        """
        @async_action(name='$act')
        async def act(self): ...
        """),
    consumer("two actions of one name", CLASS, "Root declares the action 'x' twice, as act and other",
        """
        @async_action(name='x')
        async def act(self): ...
        @async_action(name='x')
        async def other(self): ...
        """),
    consumer("a sync generator", CLASS, "Root.act is a sync generator; a stream is an async one",
        """
        @async_action
        def act(self): yield 1
        """),
    consumer("an action that hides a method", CLASS, "Root.publish hides an attribute of the handler itself",
        """
        @async_action
        async def publish(self, text: str): ...
        """),
    consumer("no self", CLASS, "Root.act takes no self; an action is a method of its handler",
        """
        @async_action
        async def act(): ...
        """),
    consumer("a parameter user", CHECK, "Root.act has a parameter user, which the client fills",
        """
        @async_action
        async def act(self, user): ...
        """),
    consumer("return 201, data", CHECK, "Root.act returns (201, ...), all of which is data, with the status 200",
        """
        @async_action
        async def act(self): return 201, {"id": 1}
        """),
    consumer("a status in quotes", CHECK, "Root.act returns (..., '201'), all of which is data",
        """
        @async_action
        async def act(self): return {"id": 1}, "201"
        """),
    consumer("a response of Starlette", FRAME, "JSONResponse cannot be written as JSON",
        """
        @async_action
        async def act(self): return JSONResponse({})
        """),
    consumer("returns an error instead of raising it", FRAME, "the exception PermissionDenied was returned, not raised; write raise",
        """
        @async_action
        async def act(self) -> Card: return PermissionDenied()
        """, guards=True),
    module("DRF's status_code", CLASS, "Closed.status_code has no effect; subclass the nearest error", """
        class Closed(APIError):
            status_code = 409
        """),
    # ----------------------------------------------------------------------------------------- dependencies, parameters
    consumer("Depends(fn())", DECLARED, "Depends: expected the function itself, as in Depends(get_session), got 1",
        """
        @async_action
        async def act(self, x: Annotated[int, Depends(int("1"))]): ...
        """, guards=True),
    consumer("FastAPI's Depends", CLASS, "the Depends of x is that of fastapi; import it from wsaction.dependencies",
        """
        @async_action
        async def act(self, x: Annotated[int, fastapi.Depends(len)]): ...
        """, guards=True),
    consumer("Depends as a default", CLASS, "x has a Depends as its default; write x: Annotated[..., Depends(no_wraps)]",
        """
        @async_action
        async def act(self, x: int = Depends(no_wraps)): ...
        """, guards=True),
    consumer("a function in Annotated", CLASS, "which nothing calls, so clients could send any x; write Depends(no_wraps)",
        """
        @async_action
        async def act(self, x: Annotated[int, no_wraps]): ...
        """, guards=True),
    consumer("DRF's request", FRAME, "Field required",
        """
        @async_action
        async def act(self, request): ...
        """),
    # ----------------------------------------------------------------------------------------------------- forgotten await
    handler("self.queryset.create() without await", FRAME, "Cards.act called MemoryQuerySet.create() without `await`, so that it did nothing",
        """
        @async_action
        async def act(self): self.queryset.create({"title": "x"})
        """, "act", "cards/"),
    handler("in a def", FRAME, "Cards.act called MemoryQuerySet.create() without `await`",
        """
        @async_action
        def act(self): self.queryset.create({"title": "x"})
        """, "act", "cards/"),
    handler("self.get_object() without await", FRAME, "called GenericAsyncAPIActionHandler.get_object() without `await`",
        """
        @async_action
        async def act(self, pk: int): self.get_object()
        """, "act", "cards/1/", guards=True),
    handler("return self.get_object()", FRAME, "was returned, not its result; did you forget `await`?",
        """
        @async_action
        async def act(self, pk: int): return self.get_object()
        """, "act", "cards/1/"),
    handler("self.publish() without await", FRAME, "Cards.act called AsyncAPIActionHandler.publish() without `await`",
        """
        @async_action
        async def act(self): self.publish("moved")
        """, "act", "cards/"),
    module("self.subscribe() without await", FRAME, "Root.act called SubscribeMixin.subscribe() without `await`", """
        class Root(SubscribeMixin, AsyncAPIConsumer):
            @async_action
            async def act(self): self.subscribe()
        """, "act", ""),
    handler("super().perform_destroy() without await", FRAME, "Cards.destroy called DestroyModelMixin.perform_destroy() without `await`",
        "async def perform_destroy(self, obj): super().perform_destroy(obj)", "destroy", "cards/1/"),
    handler("a perform_destroy that is a def", CLASS, "Cards.perform_destroy: expected an async def",
        "def perform_destroy(self, obj): print(obj)"),
    handler("for card in self.queryset", FRAME, "is iterated by `async for`, in an `async def`",
        """
        @async_action
        async def act(self): return [card for card in self.queryset]
        """, "act", "cards/"),
    handler("if self.queryset.filter(...)", FRAME, "is neither true nor false before it is read",
        """
        @async_action
        async def act(self):
            if self.queryset.filter(owner_id=99):
                return "in"
        """, "act", "cards/", guards=True),
    handler("self.queryset[0]", FRAME, "takes a slice, as in [0:], not 0. For one object, await first()",
        """
        @async_action
        async def act(self): return self.queryset[0]
        """, "act", "cards/"),
    handler("perform_create forgets return", CLASS, "Cards.perform_create returns nothing, whatever it is asked; did you forget `return`?",
        "async def perform_create(self, values): await super().perform_create(values)"),
    # ------------------------------------------------------------------------------------------------------------- events
    consumer("publishes where nobody can subscribe", FRAME, "Root publishes 'moved', but nobody can subscribe to it: add SubscribeMixin",
        """
        @async_action
        async def act(self): await self.publish("moved")
        """),
    consumer("events without SubscribeMixin", CHECK, "Root has events, but clients cannot subscribe to it",
        "events = {'moved': Card}"),
    module("an event that is not declared", FRAME, "Root.events declares no event 'movd'; did you mean 'moved'?", """
        class Root(SubscribeMixin, AsyncAPIConsumer):
            events = {"moved": Card}
            @async_action
            async def act(self): await self.publish("movd", Card())
        """, "act", ""),
    module("a list of events", CLASS, "Root.events: expected a mapping of names to types", """
        class Root(SubscribeMixin, AsyncAPIConsumer):
            events = ["moved"]
        """),
    module("app.publish(event, route)", FRAME, "None of the 0 patterns matches the route 'moved'", """
        class Root(SubscribeMixin, AsyncAPIConsumer):
            @async_action
            async def act(self): await self.app.publish("moved", "", {})
        """, "act", ""),
    # --------------------------------------------------------------------------------------------------- generic handlers
    handler("get_query_set", CLASS, "did you mean 'get_queryset'?",
        "def get_query_set(self): return self.queryset.filter(owner_id=1)", guards=True),
    handler("get_queryset forgets return", CLASS, "Cards.get_queryset returns nothing",
        "def get_queryset(self): self.queryset.filter(owner_id=1)", guards=True),
    handler("an async get_queryset", CLASS, "Cards.get_queryset must be a plain def, got an async def",
        "async def get_queryset(self): return self.queryset", guards=True),
    handler("get_serialzer_class", CLASS, "did you mean 'get_serializer_class'?",
        "def get_serialzer_class(self): return Card"),
    handler("preform_create", CLASS, "did you mean 'perform_create'?",
        "async def preform_create(self, values): ..."),
    handler("a misspelt field in a filter", FRAME, "Card has no field 'owner'; did you mean 'owner_id'?",
        "def get_queryset(self): return super().get_queryset().filter(owner=1)", guards=True),
    handler("serializer_class is a dict", CLASS, "a serializer_class is a pydantic model, a subclass of BaseModel, not {'title':",
        "serializer_class = {'title': str}"),
    module("DRF's serializer", CLASS, "a serializer_class is a pydantic model", """
        class Out:
            class Meta:
                fields = "__all__"
        class Cards(ModelAPIActionHandler):
            queryset = cards
            serializer_class = Out
        """),
    module("'ReadOnly' in quotes", CLASS, "Out.id is declared read-only in a way that wsaction does not read; write id: Annotated[..., ReadOnly]", """
        class Out(BaseModel):
            id: Annotated[int, "ReadOnly"] = 0
        class Cards(ModelAPIActionHandler):
            queryset = cards
            serializer_class = Out
        """, guards=True),
    handler("queryset = Card", MOUNTED, "Cards.queryset must be a queryset, as in MemoryQuerySet(Card), got a class",
        "queryset = Card"),
    handler("queryset = [...]", MOUNTED, "Cards.queryset must be a queryset",
        "queryset = [Card()]"),
    handler("queryset = {...}", MOUNTED, "Cards.queryset must be a queryset",
        "queryset = {1: Card()}"),
    module("no queryset", MOUNTED, "Cards needs a queryset; set it or override get_queryset()", """
        class Cards(ModelAPIActionHandler):
            model = Card
            serializer_class = Card
        """),
    module("rows that are dicts", DECLARED, "MemoryQuerySet(Card, rows): expected instances of the model, as in Card(...)",
        "queryset = MemoryQuerySet(Card, [{'id': 1}])"),
    module("no sessionmaker", DECLARED, "missing 1 required positional argument: 'sessionmaker'",
        "queryset = SQLAlchemyQuerySet(Row)"),
    module("a sync sessionmaker", DECLARED, "SQLAlchemyQuerySet takes an async_sessionmaker, as in async_sessionmaker(engine)",
        "queryset = SQLAlchemyQuerySet(Row, sessionmaker(create_engine('sqlite://')))"),
    module("an engine instead of a sessionmaker", DECLARED, "SQLAlchemyQuerySet takes an async_sessionmaker",
        "queryset = SQLAlchemyQuerySet(Row, create_async_engine('sqlite+aiosqlite://'))"),
    handler("a lookup_field that does not exist", MOUNTED, "Cards.lookup_field: Card has no field 'slug'; there are id, title, owner_id",
        "lookup_field = 'slug'"),
    handler("an ordering field that does not exist", MOUNTED, "Cards.ordering_fields: Card has no field 'titel'; did you mean 'title'?",
        "filter_backends = (OrderingFilter,); ordering_fields = ('titel',)"),
    handler("search_fields without SearchFilter", CHECK, "Cards.search_fields has no effect without SearchFilter",
        "search_fields = ('title',)"),
    handler("django-filter's filterset_fields", CLASS, "set filter_backends = (FieldFilter,) and filter_fields",
        "filterset_fields = ('title',)"),
    handler("filter_backends = SearchFilter", MOUNTED, "Cards.filter_backends must be a sequence, as in (SearchFilter,)",
        "filter_backends = SearchFilter"),
    handler("a filter backend as a string", MOUNTED, "expected subclasses of BaseFilterBackend, got 'SearchFilter'",
        "filter_backends = ('SearchFilter',)"),
    handler("pagination_class = 20", CLASS, "pagination_class is a paginator, as in PageNumberPagination(page_size=20), or None, not 20",
        "pagination_class = 20"),
    handler("page_size on the handler", CLASS, "it is a setting of the paginator",
        "page_size = 20"),
    handler("cursors without secret", MOUNTED, "CursorPagination needs a secret_key of 16 characters or more",
        "pagination_class = CursorPagination"),
]
# fmt: on


def test_the_table_is_long_and_names_no_mistake_twice() -> None:
    names = [mistake.name for mistake in MISTAKES]
    assert len(names) >= 60
    assert len(names) == len(set(names))


_numbers = itertools.count(1)


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
async def test_a_mistake_is_told(mistake: Mistake, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = f"mistaken_{next(_numbers)}"
    file = tmp_path / f"{name}.py"
    file.write_text(written(mistake))
    try:
        app, error = imported(name, file), None
    except Exception as exc:
        app, error = None, exc
    if mistake.told in (DECLARED, CLASS, MOUNTED, APP):
        assert error is not None, "nothing is told: the module was imported"
        assert mistake.message in str(error)
        assert when(error, file) == mistake.told
        return  # there is no app, so no endpoint is open
    assert error is None, error
    if mistake.told == CHECK:
        done = CliRunner().invoke(main, ["check", f"{name}:app", "--app-dir", str(tmp_path)])
        assert mistake.message in " ".join(done.output.split())
        assert done.exit_code == 1
        assert not mistake.guards  # whoever does not run it has to be safe
    else:
        replies = await answers(app, mistake)
        assert mistake.message in f"{replies}\n{caplog.text}"


def written(mistake: Mistake) -> str:
    """The module of a user who makes a mistake."""
    text = IMPORTS + mistake.source
    if "app =" in text or mistake.told == DECLARED:
        return text
    if "class Cards(" in text and "class Root(" not in text:
        text += CONSUMER
    return text + MAKE_APP if "class Root(" in text else text


def imported(name: str, file: Path) -> Any:
    """The app of a module, which is imported."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = loaded = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    finally:
        del sys.modules[name]
    return getattr(loaded, "app", None)


def when(error: Exception, file: Path) -> str:
    """When an error was raised: the first call of wsaction, below the user's own lines, decides."""
    stack = [frame for frame in traceback.extract_tb(error.__traceback__) if "wsaction" in Path(frame.filename).parts]
    called = [frame for frame in stack if Path(frame.filename) != file]
    first = called[0] if called else None
    if first is None:
        return DECLARED
    if first.name == "__init_subclass__" or (first.name == "__bool__" and "permissions" in first.filename):
        return CLASS
    if first.name in ("as_aaah", "as_asgi"):
        return MOUNTED
    return APP if first.filename.endswith("applications.py") else DECLARED


async def answers(app: Any, mistake: Mistake) -> str:
    """What a client gets for its first frame, none of which may be a success."""
    action, route, keys = mistake.frame
    try:
        async with connect(app, "/ws/") as ws:
            reply = await ws.call(action, route, **keys)
    except HandshakeRefused as refused:
        assert mistake.told == HANDSHAKE
        return str(refused)
    assert mistake.told == FRAME
    assert reply["status"] >= 400, reply
    return re.sub(r"\s+", " ", str(reply["errors"]))
