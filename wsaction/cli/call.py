"""``wsaction call``: call an action from the shell, print its stream, or follow the events of a route."""

import asyncio
import math
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from pydantic_core import from_json, to_json

if TYPE_CHECKING:
    from wsaction.client import Client, Event, Resync

__all__ = ("call",)

FAILED, UNREACHED, INTERRUPTED = 1, 3, 130  # exit codes; click uses 2 for wrong usage
_ENVELOPE_KEYS = frozenset({"action", "route", "request_id"})
_PARAMETER = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


@click.command(short_help="Call an action of a server.")
@click.argument("url")
@click.argument("action")
@click.argument("parameters", metavar="[ROUTE] [KEY=VALUE]...", nargs=-1)
@click.option("--data", metavar="JSON", help="The action's data; - reads it from standard input.")
@click.option("--stream", is_flag=True, help="Print the items of a stream as they arrive.")
@click.option("--subscribe", is_flag=True, help="Then print the route's events until Ctrl-C; reconnects.")
@click.option("--snapshot", is_flag=True, help="With --subscribe: print a snapshot, also after lost events.")
@click.option("--limit", type=click.IntRange(1), help="Exit after this many items or events.")
@click.option("--token", envvar="WSACTION_TOKEN", show_envvar=True, help="A bearer token.")
@click.option("--timeout", default=60.0, show_default=True, type=click.FloatRange(0, min_open=True), help="In seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each reply, item, event or error.")
def call(url: str, action: str, parameters: tuple[str, ...], data: str | None, as_json: bool, **options: Any) -> None:
    """Call an action of the server at URL and print the data of its reply.

    A VALUE is JSON; if it is not valid JSON, it is text. One that begins with {, [ or " must be valid JSON. With the
    action `subscribe`, the command calls nothing and prints the events of ROUTE.

    \b
    wsaction call ws://127.0.0.1:8000/ws/ retrieve cards/1/
    wsaction call ws://127.0.0.1:8000/ws/ create cards/ --data '{"title": "Mine"}'
    wsaction call ws://127.0.0.1:8000/ws/ echo text=hello

    Exit codes: 0 success, 1 error reply, 2 wrong usage, 3 no connection or no reply.
    """
    try:
        import wsaction.client as client
    except ImportError as exc:
        raise click.ClickException(str(exc)) from exc
    _check_text(URL=url, ACTION=action, parameters="".join(parameters), **{"--data": data, "--token": options["token"]})
    _check_url(url)
    if math.isnan(options["timeout"]):
        raise click.BadParameter("expected seconds, got nan", param_hint="--timeout")
    route, keys = _parameters(parameters)
    if data is not None:
        keys["data"] = _json(_standard_input() if data == "-" else data, "--data")
    printer = _Printer(as_json)
    try:
        asyncio.run(_run(printer, url, action, route, keys, **options))
    except client.ActionError as exc:
        printer.print_error(exc, {"status": exc.status, "errors": exc.errors})
        sys.exit(FAILED)
    except client.ClientError as exc:
        printer.print_error(exc, {"status": None, "errors": [{"type": "connection", "msg": str(exc)}]})
        sys.exit(UNREACHED)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


async def _run(
    printer: "_Printer",
    url: str,
    action: str,
    route: str,
    keys: dict[str, Any],
    *,
    stream: bool,
    subscribe: bool,
    snapshot: bool,
    limit: int | None,
    token: str | None,
    timeout: float,
) -> None:
    from wsaction.client import connect

    follows = subscribe or action == "subscribe"
    connecting = connect(
        url, token=token, timeout=timeout, open_timeout=timeout, reconnect=follows, on_state=printer.print_state
    )
    async with connecting as client, AsyncExitStack() as stack:
        if follows:  # before the call, so that its events are received too
            subscription = await stack.enter_async_context(client.subscribe(route, snapshot=snapshot, timeout=timeout))
            if snapshot:
                printer.print_data(subscription.snapshot)
        if stream:
            async with aclosing(client.stream(action, route, params=keys)) as items:
                await _print_each(items, printer.print_data, limit)
        elif action != "subscribe":
            printer.print_data(await _call(client, action, route, keys))
        if follows:
            await _print_each(subscription, printer.print_event, limit)


async def _call(client: "Client", action: str, route: str, keys: Mapping[str, Any]) -> Any:
    from wsaction.client import UnexpectedReply

    try:
        return await client.call(action, route, params=keys)
    except UnexpectedReply as exc:  # a call has only one cause for it
        raise click.UsageError(f"{action} is a stream; pass --stream, and --limit for its first items") from exc


async def _print_each(items: AsyncIterator[Any], print_item: Callable[[Any], None], limit: int | None) -> None:
    async for item in items:
        print_item(item)
        if limit is not None and (limit := limit - 1) == 0:
            return


class _Printer:
    """Prints for people, or lines of JSON for programs."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def print_data(self, data: Any) -> None:
        """Prints the data of a reply or a stream's item."""
        click.echo(to_json(data, indent=None if self._as_json else 2))

    def print_event(self, item: "Event[Any] | Resync[Any]") -> None:
        """Prints an event, or ``$resync`` if events were lost."""
        values = {name: getattr(item, name) for name in item.__dataclass_fields__}
        if values.get("traceparent", "") is None:  # the server does not trace
            del values["traceparent"]
        click.echo(to_json({"event": "$resync", **values} if "snapshot" in values else values))

    def print_error(self, exc: Exception, details: Mapping[str, Any]) -> None:
        """Prints why the command fails."""
        click.echo(f"wsaction: {exc}", err=True)
        if self._as_json:
            click.echo(to_json(details))

    def print_state(self, state: str, cause: Exception | None) -> None:
        """Prints why the connection was lost, each time before a new attempt."""
        if cause is not None and state == "waiting":
            click.echo(f"wsaction: {cause}; connecting again", err=True)


def _parameters(arguments: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Splits the arguments into the route, which may be left out, and the action's parameters."""
    route = "" if not arguments or _PARAMETER.fullmatch(arguments[0]) else arguments[0]
    keys = {}
    for argument in arguments[1:] if route else arguments:
        if argument == "" and argument is arguments[0]:  # the empty route, given as ""
            continue
        match = _PARAMETER.fullmatch(argument)
        if match is not None and match[1] in _ENVELOPE_KEYS:
            raise click.UsageError(f"{match[1]} is a key of the protocol; write ACTION and ROUTE before KEY=VALUE")
        if match is None:
            raise click.UsageError(f"expected KEY=VALUE after the route, as in text=hello, got {argument!r}")
        keys[match[1]] = _value(match[2], match[1])
    return route, keys


def _value(text: str, name: str) -> Any:
    if text[:1] in ("{", "[", '"'):
        return _json(text, name)
    try:
        return from_json(text)
    except ValueError:
        return text


def _check_text(**arguments: str | None) -> None:
    """Raises click's ``BadParameter`` for an argument that is not UTF-8."""
    for name, text in arguments.items():
        if text is not None and not _is_encodable(text):
            raise click.BadParameter(f"expected UTF-8, got {text[:100]!r}", param_hint=name)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_url(url: str) -> None:
    """Raises click's ``BadParameter`` if ``url`` is not a WebSocket URL."""
    reason = ""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0 and not parts.fragment
        (parts.hostname or "").encode("idna")
    except ValueError as exc:
        is_valid = False
        reason = f": {exc}"
    if not is_valid or re.search(r"\s", url):
        expected = "expected a URL like ws://127.0.0.1:8000/ws/"
        raise click.BadParameter(f"{expected}, got {url[:200]!r}{reason}", param_hint="URL")


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise click.UsageError("--data - reads standard input, which is closed")
    return sys.stdin.buffer.read()


def _json(text: str | bytes, name: str) -> Any:
    try:
        return from_json(text)
    except ValueError as exc:
        raise click.UsageError(f"{name}: expected JSON, got {text[:100]!r}: {exc}") from exc
