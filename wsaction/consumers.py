"""`AsyncAPIConsumer`: a handler that is the root of a connection."""

from typing import Any, ClassVar

from pydantic_core import to_json

from wsaction._protocol.frames import Frame, current_frame
from wsaction.dialects.base import check_dialects
from wsaction.handlers import ActionView, AsyncAPIActionHandler
from wsaction.serializers._write_only import shown

__all__ = ("AsyncAPIConsumer",)


class AsyncAPIConsumer(AsyncAPIActionHandler):
    """The root of a connection: one instance serves it from handshake to end. Mounted with ``as_asgi()``.

    It answers the empty route itself; its ``routepatterns`` lead to handlers, which find it as ``self.consumer``.
    ``action, route, args, kwargs, query_params, request_id`` are those of the frame under way, whatever else runs on
    the connection meanwhile; outside of a frame, those of the connection. Every other attribute is the connection's:
    what one frame sets the next one sees.

    ``strict_routing = False`` does as rest_framework_channels: its own ``path()`` patterns match whatever begins with
    them, and a route that matches nothing runs on the consumer. ``limits`` replaces the app's. ``outbox_policy`` says
    what becomes of a client that is too slow for what it is sent: ``"close"`` it, 1013, or ``"drop_oldest"`` events
    for it, of which ``$resync`` tells it once there is room again; replies are never dropped. ``dialect`` and
    ``dialects`` are what it speaks beside ``wsaction.v1``, see `wsaction.dialects.base`.
    """

    is_consumer: ClassVar[bool] = True

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> ActionView:
        """The ASGI app that serves this consumer, to be routed to, mounted, or run by a server as it is.

        ``initkwargs`` are set on each instance, as with ``as_aaah()``. Raises `ImproperlyConfigured` for names that the
        class does not have, for ``routepatterns`` that cannot be mounted, and for dialects that are none.
        """
        view = cls.as_aaah(**initkwargs)
        check_dialects(cls.__name__, cls.dialect, cls.dialects)
        view.table  # noqa: B018  # compiled now, so that what is wrong with it is told now
        return view

    @property
    def frame(self) -> Frame:
        """The frame under way in this context; outside of one, a frame that asks for nothing."""
        frame = current_frame.get()
        return frame if frame is not None and frame.consumer is self else self._no_frame

    @frame.setter
    def frame(self, frame: Frame) -> None:
        self._no_frame = frame

    async def send_json(self, content: Any) -> None:
        """Tells the client something that is neither a reply nor an event: ``content`` as JSON, behind what waits.

        `WriteOnly` fields of models in it are left out.
        """
        self.connection.put(to_json(shown(content), inf_nan_mode="null").decode())
