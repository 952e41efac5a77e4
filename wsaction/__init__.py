"""WebSocket APIs with routes, serializers, permissions and generic actions, as an ASGI framework.

Import from the modules: ``from wsaction.applications import WSAction``, ``from wsaction.consumers import
AsyncAPIConsumer``, ``from wsaction.routing import path``. The package itself exports no names, so that importing the
router loads nothing else.
"""

__version__ = "0.2.0"
