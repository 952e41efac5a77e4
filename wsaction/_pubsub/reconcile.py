"""Reconciliation: reads from the layer what a topic may have missed, starting at the topic's position."""

import asyncio
import logging
import random

from wsaction._pubsub.topic import Topic
from wsaction._utils.backoff import Backoff
from wsaction._utils.tasks import Tasks
from wsaction.exceptions import LayerUnavailable
from wsaction.layers.base import History, Layer, Page, Position

logger = logging.getLogger("wsaction")

MAX_READS = 128  # reads of the layer at the same time
MAX_FILL = 1_000  # events that a topic may be behind; if it is further behind, its subscribers get `$resync`
CHECK_INTERVAL = 15.0  # seconds between two comparisons of positions, plus or minus a quarter
CHECK_BATCH = 64  # topics whose positions are read at the same time
CHECK_GRACE = 0.2  # seconds that a message may take to arrive


class Reconciler:
    """Reads from the layer, with a bounded number of reads at a time, and brings topics up to date."""

    def __init__(
        self,
        layer: Layer,
        tasks: Tasks,
        *,
        check_interval: float,
        max_fill: int,
        check_grace: float = CHECK_GRACE,
        max_reads: int = MAX_READS,
    ) -> None:
        self._layer = layer
        self._tasks = tasks
        self._check_interval = check_interval
        self._check_grace = check_grace
        self._max_fill = max_fill
        self._reads = asyncio.Semaphore(max_reads)

    async def read(self, topic: Topic, history: History, since: Position | None, limit: int, own: bool = False) -> Page:
        """Reads a page from the layer. Raises ``LayerUnavailable``."""
        async with self._reads:
            return await self._layer.read(topic.name, since, limit, history, own)

    def start_reconciling(self, topic: Topic) -> None:
        """Starts to reconcile a topic, unless that is under way. The topic is not ready until it is done."""
        if not topic.reconciling and topic.history is not None:
            topic.reconciling = True
            topic.ready.clear()
            self._tasks.start(self._reconcile, topic, topic.history)

    async def _reconcile(self, topic: Topic, history: History) -> None:
        backoff = Backoff()
        try:
            while topic.confirmed and topic.is_wanted:
                try:
                    settled = await self._read_and_apply(topic, history)
                except Exception as exc:
                    if not isinstance(exc, LayerUnavailable):
                        fields = {"topic": topic.name}
                        logger.exception("the layer failed to read topic %r; trying again", topic.name, extra=fields)
                    await asyncio.sleep(backoff.seconds())
                else:
                    if settled:
                        topic.ready.set()
                        return
        finally:
            topic.reconciling = False

    async def _read_and_apply(self, topic: Topic, history: History) -> bool:
        """Applies the events that the layer has after the topic's position, then the backlog.

        Returns whether nothing is missing now.
        """
        generation = topic.generation
        before_read = len(topic.backlog)
        topic.overrun = False
        since = topic.position if topic.has_position else None
        page = await self.read(topic, history, since, self._max_fill, own=topic.has_position)
        if generation != topic.generation:
            return False  # the layer lost its connection during the read: later events would be missing
        topic.apply_page(page)
        return topic.apply_backlog(before_read)

    # ------------------------------------------------------------------------------------------------ silent losses
    async def check(self, topics: dict[str, Topic]) -> None:
        """Compares the positions of topics with the layer's, for ever: nothing else reveals that a message was lost."""
        while True:
            await asyncio.sleep(self._check_interval * random.uniform(0.75, 1.25))  # noqa: S311  # nothing secret
            try:
                behind = await self._find_behind(list(topics.values()))
            except LayerUnavailable:
                continue  # the layer is already trying to connect
            except Exception:  # other programs may have written anything into the layer
                logger.exception("the positions of topics could not be compared; trying again")
                continue
            if behind:
                await asyncio.sleep(self._check_grace)
            for topic, position in behind:
                if topic.ready.is_set() and topic.position == position:
                    fields = {"topic": topic.name}
                    logger.warning("messages of topic %r were lost; reading them again", topic.name, extra=fields)
                    self.start_reconciling(topic)

    async def _find_behind(self, topics: list[Topic]) -> list[tuple[Topic, Position]]:
        """Returns the topics whose position differs from the layer's, each with its position.

        For some of them a message is still on its way.
        """
        behind: list[tuple[Topic, Position]] = []
        settled = [(topic, topic.history) for topic in topics if topic.history is not None and topic.ready.is_set()]
        for start in range(0, len(settled), CHECK_BATCH):
            batch = settled[start : start + CHECK_BATCH]
            reads = (self.read(topic, history, topic.position, 0) for topic, history in batch)
            for (topic, _), page in zip(batch, await asyncio.gather(*reads), strict=True):
                if topic.ready.is_set() and topic.position != page.position:
                    behind.append((topic, topic.position))
            await asyncio.sleep(0)
        return behind
