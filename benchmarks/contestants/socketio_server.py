"""The action job on python-socketio: an event whose acknowledgement is the reply. The rest is by hand."""

from typing import Any

import socketio

from benchmarks.contestants.by_hand import ROUTES, WAITING_ROUTES, handle


def make(routes: Any) -> Any:
    server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")

    @server.event
    async def connect(sid: str, environ: dict[str, Any]) -> None:
        await server.save_session(sid, {"user": environ["asgi.scope"]["user"]})

    @server.event
    async def update(sid: str, message: dict[str, Any]) -> dict[str, Any]:
        session = await server.get_session(sid)
        reply = await handle(session["user"], message, routes)
        return reply.model_dump(mode="json")

    return socketio.ASGIApp(server)


app, waiting_app = make(ROUTES), make(WAITING_ROUTES)
