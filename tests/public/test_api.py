"""The public API: a table of every module and name that users import. Removing a name breaks an application."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsaction.client

ROOT = Path(__file__).parents[2]
PUBLIC = {
    module: names.split()
    for module, names in {
        "applications": "CallNext ExceptionHandler Middleware WSAction",
        "asyncapi": "describe",
        "authentication": "BaseAuthentication BearerAuthentication Credential FirstFrameAuthentication "
        "SessionAuthentication",
        "client": "ActionError ActionNotAllowed ActionTimeout CallTimeout Cancelled Client ClientError Conflict "
        "ConnectionFailed ConnectionLost Event Events InvalidRequest NotAuthenticated NotFound Overflow "
        "PermissionDenied Position Resync RouteNotFound ServerError State Subscription SubscriptionState Throttled "
        "Unavailable UnexpectedReply connect",
        "codegen": "erase_types python react_hooks typescript",
        "consumers": "AsyncAPIConsumer",
        "contrib.opentelemetry": "OpenTelemetry",
        "contrib.prometheus": "Prometheus",
        "contrib.sqlalchemy": "SQLAlchemyQuerySet",
        "converters": "Converter ImproperlyConfigured get_converter register_converter",
        "decorators": "async_action",
        "dependencies": "Depends",
        "dialects.base": "Conversation Dialect Worded",
        "dialects.dcrf": "DCRF",
        "exceptions": "APIError ActionNotAllowed ActionTimeout Busy CATALOGUE Cancelled Conflict DatabaseUnavailable "
        "DuplicateRequestID ImproperlyConfigured InvalidFrame InvalidJSON InvalidParameters LayerUnavailable "
        "NotAuthenticated NotFound OutcomeUnknown PermissionDenied ReplyTooLarge RouteNotFound ServerError "
        "ShuttingDown Throttled",
        "filters": "BaseFilterBackend FieldFilter OrderingFilter SearchFilter",
        "generics": "CreateAPIActionHandler CreateAPIConsumer DestroyAPIActionHandler DestroyAPIConsumer "
        "GenericAsyncAPIActionHandler GenericAsyncAPIConsumer ListAPIActionHandler ListAPIConsumer "
        "ListCreateAPIActionHandler ListCreateAPIConsumer ModelAPIActionHandler ModelAPIConsumer "
        "ReadOnlyModelAPIActionHandler ReadOnlyModelAPIConsumer RetrieveAPIActionHandler RetrieveAPIConsumer "
        "RetrieveDestroyAPIActionHandler RetrieveDestroyAPIConsumer RetrieveUpdateAPIActionHandler "
        "RetrieveUpdateAPIConsumer RetrieveUpdateDestroyAPIActionHandler RetrieveUpdateDestroyAPIConsumer "
        "UpdateAPIActionHandler UpdateAPIConsumer",
        "handlers": "AsyncAPIActionHandler",
        "hooks": "ActionInfo Hooks",
        "layers.base": "History Layer Page Place Position Roster Sink",
        "layers.memory": "MemoryLayer",
        "layers.redis": "RedisLayer",
        "layers.throttles": "RedisThrottleStore",
        "limits": "Limits",
        "mixins": "CreateModelMixin DestroyModelMixin Input ListModelMixin Output OutputList OutputPages PartialInput "
        "RetrieveModelMixin UpdateModelMixin Values",
        "pagination": "BasePagination CursorPagination LimitOffsetPagination Page PageNumberPagination PageReply",
        "permissions": "AllowAny BasePermission Composition DenyAll IsAuthenticated IsAuthenticatedStrictly IsOwner "
        "Permission Scope",
        "presence": "PresenceMixin",
        "querysets": "FieldError InvalidLookup MemoryQuerySet MultipleObjectsReturned NarrowingQuerySet Q QuerySet",
        "routers": "SimpleRouter",
        "routing": "ImproperlyConfigured NoReverseMatch Resolver404 ResolverMatch Router include path re_path "
        "register_converter",
        "serializers": "InputModel ReadOnly WriteOnly input_model output_model",
        "server": "DrainingProtocol HTTPProtocol JSONFormatter run",
        "subscriptions": "SharedTopic Since SubscribeMixin",
        "testing": "ActionFailed ClientDisconnected ConnectionClosed HandshakeRefused Stream UnexpectedFrame "
        "WebSocketSession WebsocketCommunicator connect",
        "testing.layers": "LayerContract",
        "testing.querysets": "QuerySetContract",
        "throttling": "AnonRateThrottle BaseThrottle ConnectionRateThrottle MemoryThrottleStore Rate "
        "ScopedRateThrottle SimpleRateThrottle ThrottleStore UserRateThrottle",
        "transactions": "Resource UnitOfWork unit_of_work",
    }.items()
}


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_module_has_a_docstring_and_its_names(module: str) -> None:
    loaded = importlib.import_module(f"wsaction.{module}")
    assert loaded.__doc__
    assert set(PUBLIC[module]) <= set(loaded.__all__)
    for name in PUBLIC[module]:
        thing = getattr(loaded, name)
        assert not isinstance(thing, type) or thing.__doc__, f"{module}.{name} has no docstring"


def test_the_former_name_of_transactions_warns_and_works() -> None:
    with pytest.warns(DeprecationWarning, match="wsaction.transactions"):
        units = importlib.import_module("wsaction.units")
    for name in units.__all__:
        assert getattr(units, name) is getattr(importlib.import_module("wsaction.transactions"), name)


def test_the_objects_of_the_client_show_only_what_users_call() -> None:
    client = wsaction.client.Client("ws://127.0.0.1/")
    for shown, names in {
        client: "call events flush on_state send state stream subscribe",
        client.subscribe("a/"): "close on_state position recovered route snapshot state",
        client.events(): "",
    }.items():
        assert [name for name in dir(shown) if not name.startswith("_")] == names.split()


def test_the_names_at_the_root_are_those_of_the_modules() -> None:
    tree = ast.parse((ROOT / "wsaction" / "__init__.py").read_text())
    doors = {name: module for module, name in imported(ast.unparse(tree)) if not module.startswith("_")}
    assert sorted(doors) == sorted(wsaction.__all__)
    for name, module in doors.items():
        assert name in PUBLIC[module]
        assert getattr(wsaction, name) is getattr(importlib.import_module(f"wsaction.{module}"), name)
    assert set(wsaction.__all__) <= set(dir(wsaction))


def test_the_root_loads_nothing_until_a_name_is_used() -> None:
    shown = "print(sorted(name for name in sys.modules if name.startswith(('wsaction', 'starlette', 'pydantic'))))"
    source = f"import sys, wsaction; {shown}; from wsaction import path; {shown}"
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60)
    before, after = map(ast.literal_eval, ran.stdout.splitlines())
    assert before == ["wsaction"]
    assert {name.partition(".")[0] for name in after} == {"wsaction"}
    assert "wsaction.routing" in after


def test_a_misspelt_name_at_the_root_says_which_was_meant() -> None:
    with pytest.raises(AttributeError, match="no attribute 'WSActoin'; did you mean 'WSAction'"):
        wsaction.WSActoin  # noqa: B018


def imported(source: str) -> Iterator[tuple[str, str]]:
    """The modules of wsaction that a program imports, each with the names that it imports from them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "wsaction":
            module = (node.module or "").removeprefix("wsaction").lstrip(".")
            for alias in node.names:
                if module or alias.name in wsaction.__all__:
                    yield module, alias.name
                else:
                    yield alias.name, ""


def programs() -> dict[str, str]:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    files = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "examples").rglob("*.py")}
    return {**{f"README.md, block {number}": block for number, block in enumerate(blocks, 1)}, **files}


@pytest.mark.parametrize(("where", "source"), programs().items(), ids=list(programs()))
def test_readme_and_examples_import_public_names_only(where: str, source: str) -> None:
    for module, name in imported(source):
        known = PUBLIC.get(module) if module else wsaction.__all__
        assert known is not None, f"{where} imports wsaction.{module}"
        assert not name or name in known, f"{where} imports {name} of wsaction.{module}"
