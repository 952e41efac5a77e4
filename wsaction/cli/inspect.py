"""``wsaction routes``, ``asyncapi`` and ``check``: inspect an app without running it."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from wsaction._handlers.action import Action
from wsaction._server.worker_count import count_workers
from wsaction.applications import WSAction
from wsaction.cli._loading import app_argument
from wsaction.cli._output import output_option, table, write_output
from wsaction.cli._routes import Entry, inventory
from wsaction.cli.check import check as check_app

__all__ = ("asyncapi", "check", "routes")

_HEADS = ("CONNECTION", "ROUTE", "NAME", "HANDLER", "ACTIONS", "PERMISSIONS", "LIVE")


@click.command(short_help="List the routes of an app.")
@app_argument
@click.option("--json", "as_json", is_flag=True, help="Print the routes as a JSON list.")
def routes(app: WSAction, as_json: bool) -> None:
    """List every route of an app: connection path, handler, actions, permissions, and whether clients can subscribe.

    An action with its own permissions shows the last of them in brackets.
    """
    entries = [*inventory(app.router)]
    if as_json:
        click.echo(json.dumps([_as_dict(entry) for entry in entries], ensure_ascii=False, indent=2))
    else:
        click.echo(table(_HEADS, [_row(entry) for entry in entries], {"ACTIONS": 44, "PERMISSIONS": 30}))


def _as_dict(entry: Entry) -> dict[str, Any]:
    return {
        "connection": entry.connection,
        "route": entry.route,
        "name": entry.name or None,
        "handler": entry.handler,
        "actions": [
            {"action": name, "streams": action.streams, "permissions": entry.permissions(action)}
            for name, action in entry.actions.items()
        ],
        "permissions": entry.permissions(),
        "live": entry.is_live,
    }


def _row(entry: Entry) -> list[str]:
    if entry.mounted is None:
        return [entry.connection or '""', "", entry.name, entry.handler, "(another ASGI app)", "", ""]
    actions = ", ".join(_action_cell(entry, name, action) for name, action in entry.actions.items())
    permissions = ", ".join(entry.permissions()) or "-"
    live = "yes" if entry.is_live else "-"
    return [entry.connection or '""', entry.route or '""', entry.name or "-", entry.handler, actions, permissions, live]


def _action_cell(entry: Entry, name: str, action: Action) -> str:
    permissions = entry.permissions(action)
    return name if permissions == entry.permissions() else f"{name} [{', '.join(permissions[-1:]) or '-'}]"


@click.command(short_help="Print the AsyncAPI document of an app.")
@app_argument
@output_option
def asyncapi(app: WSAction, output: Path | None) -> None:
    """Print the AsyncAPI 3.1 document of an app, the same that it serves at its asyncapi_url."""
    write_output(json.dumps(app.asyncapi(), ensure_ascii=False, indent=2) + "\n", output)


@click.command(short_help="Check an app for mistakes.")
@app_argument
@click.option("--workers", type=click.IntRange(1), help="Number of processes; by default WEB_CONCURRENCY or 1.")
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings too.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(app: WSAction, workers: int | None, strict: bool, as_json: bool) -> None:
    """Check the declarations of an app for mistakes, without running it.

    \b
    error    duplicate_route    same pattern as an earlier route, so never reached
    error    shadowed_route     an earlier route matches everything that it does
    error    memory_layer       events do not reach other workers
    error    any_origin         cookies authenticate, and any page may connect
    error    unused_policy      permissions or throttles in an attribute that is not read
    warning  leading_slash      a pattern that begins with '/'
    warning  regex_in_path      a regular expression in path()
    warning  braces_in_path     {pk} in path(), which captures nothing
    warning  unknown_attribute  probably misspelt, and not read
    warning  unused_filter      filter_fields or similar without its filter backend
    warning  no_subscribe       events that no client can subscribe to
    warning  client_input       user or scope as a parameter of an action
    warning  no_permissions     every connected client may use it
    warning  object_permissions object permissions that are never checked
    warning  open_broadcasts    not every client may send them, but all receive them
    warning  no_timeout         an action that may run for ever
    warning  no_pagination      a list that returns all rows at once
    warning  loose_limit        a limit too large to have an effect
    warning  memory_throttles   each worker counts rates for itself
    warning  any_host           neither allowed_hosts nor allowed_origins
    warning  debug              clients receive tracebacks

    Exit codes: 0 no errors, 1 errors (with --strict also warnings), 2 wrong usage.
    """
    findings = check_app(app, workers or count_workers([]))
    errors = sum(finding.level == "error" for finding in findings)
    warnings = len(findings) - errors
    if as_json:
        report = {"findings": [asdict(finding) for finding in findings], "errors": errors, "warnings": warnings}
        click.echo(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.level:<8} {finding.code}  {finding.place}")
            click.echo(f"         {finding.msg}\n         cure: {finding.cure}")
        click.echo(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}")
    if errors or (strict and findings):
        sys.exit(1)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
