"""The ``wsaction`` command: ``wsaction run main:app`` serves an application."""

import errno
from pathlib import Path
from typing import Any

try:
    import click
except ImportError as exc:
    raise ImportError("the wsaction command needs click: pip install 'wsaction[standard]'") from exc

import wsaction
from wsaction.cli._loading import (
    EXISTING_FILE,
    app_dir_option,
    check_factory,
    check_module,
    check_served,
    factory_option,
    find_target,
    summarize,
)
from wsaction.cli.call import call
from wsaction.cli.codegen import codegen
from wsaction.cli.inspect import asyncapi, check, routes
from wsaction.cli.new import new
from wsaction.exceptions import ImproperlyConfigured
from wsaction.server import run as run_app

__all__ = ("main",)

LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")


class _Commands(click.Group):
    """Commands that report a wrong declaration in the app, or an error of the system, in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ImproperlyConfigured as exc:
            raise click.ClickException(summarize(exc)) from exc
        except OSError as exc:
            if exc.errno == errno.EPIPE:  # the reader of our output has exited; click handles this silently
                raise
            raise click.ClickException(str(exc)) from exc


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(wsaction.__version__, message="wsaction %(version)s")
def main() -> None:
    """wsaction: routes, serializers, permissions and generic actions on one WebSocket."""


main.add_command(new)
main.add_command(call)
main.add_command(routes)
main.add_command(asyncapi)
main.add_command(check)
main.add_command(codegen)


@main.command(short_help="Serve an app with uvicorn.")
@click.argument("app", metavar="MODULE:APP")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65_535), help="Port; 0 for a free one.")
@click.option("--uds", metavar="PATH", help="Listen on a UNIX domain socket instead.")
@click.option("--workers", type=click.IntRange(1), help="Number of processes; several need a shared layer.")
@click.option("--reload", is_flag=True, help="Restart when a file changes; for development.")
@click.option("--reload-dir", "reload_dirs", multiple=True, help="Watch this directory; may be repeated.")
@app_dir_option
@factory_option
@click.option("--env-file", type=EXISTING_FILE, help="Set environment variables from this file.")
@click.option("--root-path", default="", help="Path prefix under which a proxy serves the app.")
@click.option("--forwarded-allow-ips", metavar="IPS", help="Trust X-Forwarded-* headers from these proxies.")
@click.option("--ssl-keyfile", type=EXISTING_FILE, help="Private key, for wss://.")
@click.option("--ssl-certfile", type=EXISTING_FILE, help="Certificate, for wss://.")
@click.option("--log-level", default="info", show_default=True, type=click.Choice(LOG_LEVELS), help="Log level.")
@click.option("--log-format", default="text", show_default=True, type=click.Choice(LOG_FORMATS), help="Log format.")
@click.option("--ws-max-size", type=click.IntRange(1), help="Largest message in bytes; max_frame_bytes may be less.")
@click.option("--ws-ping-interval", default=20.0, show_default=True, help="Seconds between pings.")
@click.option("--ws-ping-timeout", default=20.0, show_default=True, help="Seconds to wait for a pong.")
@click.option("--limit-concurrency", type=click.IntRange(1), help="Open connections; others get HTTP 503.")
@click.option("--backlog", default=2048, show_default=True, type=click.IntRange(1), help="Connections in the queue.")
def run(app: str, app_dir: str, **options: Any) -> None:
    """Serve an app with uvicorn, with the settings that wsaction recommends.

    On SIGTERM or Ctrl-C the server drains: it finishes running actions and closes connections with code 1012.
    """
    if options["reload"] and (options["workers"] or 1) > 1:
        raise click.UsageError("--reload watches a single process; leave out --workers or --reload")
    if options["ssl_keyfile"] and not options["ssl_certfile"]:
        raise click.UsageError("--ssl-keyfile needs a certificate; give --ssl-certfile too")
    if options["uds"] and not Path(options["uds"]).resolve().parent.is_dir():
        raise click.BadParameter(f"there is no folder for {options['uds']}", param_hint="--uds")
    if options["reload"] or options["env_file"]:
        check_module(app, app_dir)  # the server imports the app itself: after each change, with the variables set
    else:
        module, target = find_target(app, app_dir)
        if options["factory"]:
            check_factory(target, app)
        else:
            check_served(target, app, module)
    options["reload_dirs"] = list(options["reload_dirs"]) or None
    run_app(app, **{name: value for name, value in options.items() if value is not None})
