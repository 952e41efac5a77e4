"""`AsyncAPIConsumer`: the base class of consumers, which serve a connection."""

from typing import Any, ClassVar

from pydantic_core import to_json

from wsaction._protocol.awaited import awaited
from wsaction._protocol.frames import Frame, current_frame
from wsaction.dialects.base import check_dialects
from wsaction.handlers import ActionView, AsyncAPIActionHandler
from wsaction.serializers._write_only import strip_write_only

__all__ = ("AsyncAPIConsumer",)


class AsyncAPIConsumer(AsyncAPIActionHandler):
    """The base class of consumers. One instance serves a connection from handshake to end.

    A consumer answers the empty route. Its ``routepatterns`` lead to handlers, which find it as ``self.consumer``.
    ``action``, ``route``, ``args``, ``kwargs``, ``query_params`` and ``request_id`` belong to the frame that the
    current task answers, even while other frames run; outside of a frame, to the connection. All other attributes
    belong to the connection: the next frame sees the values that a frame set.

    * ``limits``: replaces the limits of the app.
    * ``outbox_policy``: what happens if a client is too slow. ``"close"`` closes the connection with 1013.
      ``"drop_oldest"`` drops the oldest events, never replies, and sends a ``$resync`` once there is room again.
    * ``strict_routing = False``: routes as rest_framework_channels does. A ``path()`` pattern of the consumer matches
      every route that begins with it, and the consumer answers routes that match no pattern.
    * ``dialect``, ``dialects``: other protocols than ``wsaction.v1``; see `wsaction.dialects.base`.

    >>> class Echo(AsyncAPIConsumer):
    ...     @async_action
    ...     async def echo(self, text: str) -> str:
    ...         return text
    """

    is_consumer: ClassVar[bool] = True

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> ActionView:
        """An ASGI app that serves this consumer. Route to it in `WSAction`, mount it, or run it with a server.

        :param initkwargs: Attributes of the class to set on each instance, as with ``as_aaah()``.
        :raises ImproperlyConfigured: for unknown attributes, ``routepatterns`` that cannot work, and invalid dialects.

        >>> app = WSAction([path("ws/", Echo.as_asgi())])
        """
        view = cls.as_aaah(**initkwargs)
        check_dialects(cls.__name__, cls.dialect, cls.dialects)
        view.table  # noqa: B018  # compiled now, so that a mistake in it is raised now
        return view

    @property
    def frame(self) -> Frame:
        """The frame that the current task answers; outside of a frame, an empty frame of the connection."""
        frame = current_frame.get()
        return frame if frame is not None and frame.consumer is self else self._no_frame

    @frame.setter
    def frame(self, frame: Frame) -> None:
        self._no_frame = frame

    @awaited
    async def send_json(self, content: Any) -> None:
        """Sends ``content`` to the client as JSON, without an envelope and after the messages that already wait.

        `WriteOnly` fields of models are left out.
        """
        self.connection.put(to_json(strip_write_only(content), inf_nan_mode="null").decode())
