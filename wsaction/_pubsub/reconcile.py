"""Reconciliation: whatever is doubtful about a topic is settled by reading the layer from where the topic stands."""

import asyncio
import logging
import random

from wsaction._pubsub.topic import Topic
from wsaction._utils.backoff import Backoff
from wsaction._utils.tasks import Tasks
from wsaction.exceptions import LayerUnavailable
from wsaction.layers.base import History, Layer, Page, Position

__all__ = ("CHECK_GRACE", "CHECK_INTERVAL", "MAX_FILL", "MAX_READS", "Reconciler")

logger = logging.getLogger("wsaction")

MAX_READS = 128  # of the layer at once
MAX_FILL = 1_000  # events that a topic is behind; past it its subscribers are told to load again
CHECK_INTERVAL = 15.0  # seconds between two comparisons of positions, give or take a quarter
CHECK_BATCH = 64  # topics whose positions are asked for at once
CHECK_GRACE = 0.2  # seconds that a message may be on its way for


class Reconciler:
    """Reads the layer, a bounded number of times at once, and settles topics by what it reads."""

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
        """A page of the layer's. Raises ``LayerUnavailable``."""
        async with self._reads:
            return await self._layer.read(topic.name, since, limit, history, own)

    def settle(self, topic: Topic) -> None:
        """Has a topic reconciled that is not ready, if that is not under way."""
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
                        logger.exception("the layer failed to read topic %r; trying again", topic.name)
                    await asyncio.sleep(backoff.seconds())
                else:
                    if settled:
                        topic.ready.set()
                        return
        finally:
            topic.reconciling = False

    async def _read_and_apply(self, topic: Topic, history: History) -> bool:
        """Reads from where the topic stands, applies that and what was heard meanwhile; whether it all fitted."""
        generation = topic.generation
        heard_before = len(topic.backlog)
        topic.overrun = False
        since = topic.position if topic.has_position else None
        page = await self.read(topic, history, since, self._max_fill, own=topic.has_position)
        if generation != topic.generation:
            return False  # the connection was lost as we read: what was published since then would be missing
        topic.absorb(page)
        return topic.apply_backlog(heard_before)

    # ------------------------------------------------------------------------------------------------ a quiet loss
    async def check(self, topics: dict[str, Topic]) -> None:
        """Compares positions for ever: a message that never came is told by none."""
        while True:
            await asyncio.sleep(self._check_interval * random.uniform(0.75, 1.25))  # noqa: S311  # nothing secret
            try:
                behind = await self._find_behind(list(topics.values()))
            except LayerUnavailable:
                continue  # it is being looked for
            except Exception:  # what others wrote into the layer may be anything
                logger.exception("the positions of topics could not be compared; trying again")
                continue
            if behind:
                await asyncio.sleep(self._check_grace)
            for topic, position in behind:
                if topic.ready.is_set() and topic.position == position:
                    logger.warning("messages of topic %r were lost without a word; catching up", topic.name)
                    self.settle(topic)

    async def _find_behind(self, topics: list[Topic]) -> list[tuple[Topic, Position]]:
        """Those that stand elsewhere than the layer says, with where they stand; some have a message on its way."""
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
