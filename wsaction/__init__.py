"""Routes, serializers, permissions and generic actions on one WebSocket.

The modules are the API: ``from wsaction.applications import WSAction``, ``from wsaction.consumers import
AsyncAPIConsumer``, ``from wsaction.routing import path``. Nothing is re-exported here, so that the router can be
imported alone.
"""

__version__ = "0.2.0"
