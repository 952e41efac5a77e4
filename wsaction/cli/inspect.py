"""``wsaction routes``, ``asyncapi`` and ``check``: what an app is, without running it."""

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
from wsaction.cli._output import output_option, put, table
from wsaction.cli._routes import Entry, inventory
from wsaction.cli.check import check as check_app

__all__ = ("asyncapi", "check", "routes")

_HEADS = ("CONNECTION", "ROUTE", "NAME", "HANDLER", "ACTIONS", "PERMISSIONS", "LIVE")


@click.command(short_help="List the routes of an app.")
@app_argument
@click.option("--json", "as_json", is_flag=True, help="A JSON list of the routes.")
def routes(app: WSAction, as_json: bool) -> None:
    """List every route of an app: the path to connect to, what is there, who may, and whether it can be subscribed to.

    An action that has permissions of its own has them behind its name.
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
    """Print the AsyncAPI 3.1 document of an app, as it is served at its asyncapi_url."""
    put(json.dumps(app.asyncapi(), ensure_ascii=False, indent=2) + "\n", output)


@click.command(short_help="Look for mistakes in what an app declares.")
@app_argument
@click.option("--workers", type=click.IntRange(1), help="Processes that are to serve it; WEB_CONCURRENCY, or 1.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def check(app: WSAction, workers: int | None, strict: bool, as_json: bool) -> None:
    """Look for mistakes in what an app declares, without running it.

    \b
    error    duplicate_route    written like one before it, and never reached
    error    shadowed_route     one before it matches whatever it does
    error    memory_layer       events do not cross workers
    error    any_origin         cookies are trusted, and any page may connect
    error    unused_policy      permissions or throttles under a name that nothing reads
    warning  leading_slash      a pattern that begins with '/'
    warning  regex_in_path      a regular expression in path()
    warning  braces_in_path     {pk} in path(), which captures nothing
    warning  unknown_attribute  misspelt, and read by nothing
    warning  unused_filter      filter_fields and the like without their filter
    warning  no_subscribe       events that nobody can subscribe to
    warning  client_input       user or scope as an action's parameter
    warning  no_permissions     whoever is connected may use it
    warning  object_permissions permissions for objects, where nothing asks them
    warning  open_broadcasts    not everybody may tell them, and everybody hears them
    warning  no_timeout         an action that may run for ever
    warning  no_pagination      a list that answers every row at once
    warning  loose_limit        a bound so wide that it is none
    warning  memory_throttles   rates are counted by each worker
    warning  any_host           neither allowed_hosts nor allowed_origins
    warning  debug              clients are told tracebacks

    Exit codes: 0 no error, 1 errors (or, with --strict, warnings), 2 wrong use.
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
