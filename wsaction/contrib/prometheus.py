"""Metrics: connections, actions, events and bounds, by ``prometheus_client``, for one process or several workers.

=============================================  =========================  =============================================
metric                                         labels                     counts
=============================================  =========================  =============================================
``wsaction_connections``                       consumer                   open connections
``wsaction_disconnections_total``              consumer, code             connections that have ended, by close code
``wsaction_action_seconds`` (histogram)        handler, action, status    answered frames, and how long they took
``wsaction_events_published_total``            event                      events that were given to the layer
``wsaction_events_delivered_total``            event                      events for one subscriber each
``wsaction_events_unpublished_total``                                     events that were lost after their commit
``wsaction_limits_reached_total``              limit                      how often each bound of ``Limits`` was reached
``wsaction_layer_available``                                              1 while the layer delivers, else 0
=============================================  =========================  =============================================

Labels have few values, whatever clients send: names of classes, actions and events from the code, never a route or an
id. Of close codes, those that nobody has specified count as ``3xxx``, ``4xxx`` or ``other``.
"""

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from wsaction._protocol import close_codes
from wsaction._utils.asgi import Receive, Send
from wsaction.hooks import ActionInfo, Hooks

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, make_asgi_app
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
except ImportError as exc:
    raise ImportError(
        "wsaction.contrib.prometheus needs prometheus-client: pip install 'wsaction[prometheus]'"
    ) from exc

__all__ = ("Prometheus",)

MAX_EVENT_NAMES = 200  # as labels; an application that makes names up at run time has the others in one
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_KNOWN_CODES = {code for code in vars(close_codes).values() if type(code) is int} | set(range(1000, 1016))


class Prometheus(Hooks):
    """Hooks that count, and an ASGI app that serves what they counted.

    All instances of a registry count in the same metrics, as do all apps that share an instance. With several workers,
    set ``PROMETHEUS_MULTIPROC_DIR`` to an empty directory before they start: any worker then answers for all of them,
    without those that have died.

    :param registry: Where the metrics are registered; by default that of the process.

    >>> metrics = Prometheus()
    >>> app = WSAction(routes, hooks=[metrics])
    >>> site = Starlette(routes=[Route("/metrics", metrics), Mount("/", app)], lifespan=app.lifespan)
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        if registry not in _metrics:
            _metrics[registry] = _Metrics(registry)
        self._metrics = _metrics[registry]

    def on_connect(self, consumer: Any) -> None:
        """Counts an open connection."""
        self._metrics.connections.labels(type(consumer).__name__).inc()

    def on_disconnect(self, consumer: Any, code: int) -> None:
        """Counts a close code."""
        name = type(consumer).__name__
        self._metrics.connections.labels(name).dec()
        self._metrics.disconnections.labels(name, _code_label(code)).inc()

    def on_action(self, info: ActionInfo) -> None:
        """Counts a frame by its status; ``""`` stands for a handler or an action that there is not."""
        self._metrics.seconds.labels(info.handler or "", info.action or "", info.status).observe(info.seconds)

    def on_publish(self, topic: str, event: str) -> None:
        """Counts a published event."""
        self._metrics.published.labels(self._metrics.event_label(event)).inc()

    def on_event(self, topic: str, event: str, recipients: int) -> None:
        """Counts the subscribers of a delivered event; messages between the processes are none."""
        if recipients and not topic.startswith("$"):
            self._metrics.delivered.labels(self._metrics.event_label(event)).inc(recipients)

    def on_unpublished(self, topic: str) -> None:
        """Counts a lost event."""
        self._metrics.unpublished.inc()

    def on_limit(self, consumer: Any, limit: str, value: float) -> None:
        """Counts a bound that was reached."""
        self._metrics.limits.labels(limit).inc()

    def on_layer_state(self, is_available: bool) -> None:
        """Notes whether the layer delivers."""
        self._metrics.layer.set(is_available)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answers an HTTP request with all metrics of the registry; with those of all workers, if there are several."""
        registry = self._registry
        if directory := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            _forget_dead_processes(Path(directory))
            registry = CollectorRegistry()
            MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
        await make_asgi_app(registry)(scope, receive, send)


class _Metrics:
    """The metrics of a registry, which refuses a second one of a name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._event_names: set[str] = set()
        self.connections = Gauge(
            "wsaction_connections", "Open connections", ["consumer"], multiprocess_mode="livesum", registry=registry
        )
        self.disconnections = Counter(
            "wsaction_disconnections", "Connections that have ended", ["consumer", "code"], registry=registry
        )
        self.seconds = Histogram(
            "wsaction_action_seconds",
            "Seconds from a frame to its final reply",
            ["handler", "action", "status"],
            buckets=SECONDS,
            registry=registry,
        )
        self.published = Counter(
            "wsaction_events_published", "Events that were given to the layer", ["event"], registry=registry
        )
        self.delivered = Counter(
            "wsaction_events_delivered", "Events for one subscriber each", ["event"], registry=registry
        )
        self.unpublished = Counter(
            "wsaction_events_unpublished", "Events that were lost after their commit", registry=registry
        )
        self.limits = Counter("wsaction_limits_reached", "Bounds that were reached", ["limit"], registry=registry)
        self._registry = registry

    @cached_property
    def layer(self) -> Gauge:
        """Made at its first use: the process that starts the workers has no layer, and would count as 0."""
        return Gauge(
            "wsaction_layer_available",
            "Whether the layer delivers; of several workers, whether it does in all of them",
            multiprocess_mode="livemin",
            registry=self._registry,
        )

    def event_label(self, event: str) -> str:
        """The event's name, or ``other`` if there are too many names already."""
        if event not in self._event_names:
            if len(self._event_names) >= MAX_EVENT_NAMES:
                return "other"
            self._event_names.add(event)
        return event


_metrics: dict[CollectorRegistry, _Metrics] = {}  # a process has one registry, its tests a few


def _code_label(code: int) -> str:
    if code in _KNOWN_CODES:
        return str(code)
    return f"{code // 1000}xxx" if code // 1000 in (3, 4) else "other"


def _forget_dead_processes(directory: Path) -> None:
    """Drops the gauges of workers that were killed, which could not do it by themselves."""
    for pid in {
        int(found[1]) for path in directory.iterdir() if (found := re.search(r"_live\w+_(\d+)\.db$", path.name))
    }:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, directory)  # type: ignore[no-untyped-call]
        except PermissionError:  # it lives, as another user's
            continue
