"""The order of one connection's frames: which are under way, which wait, and for what.

Frames with the same key run in order: at most one of them is under way, the others wait in its *lane*. The key is the
canonical route, or None for streams and for actions with ``ordered=False``, which run at once: `_handlers.mounts`
decides whether a plan is ordered, `_handlers.route_table.Call` makes the key.

At most ``max_concurrency`` frames are under way in all; the firsts of other lanes wait for a place. At most
``max_queued_actions`` wait, with at most ``max_queued_bytes`` of text: parsed, they may take many times that.
"""

from collections import deque

from wsaction._protocol.frames import Frame
from wsaction.exceptions import APIError, Busy, DuplicateRequestID
from wsaction.limits import Limits


class Lanes:
    """Decides which frame runs when; runs nothing itself.

    A frame that runs at once and never suspends needs none of this: ``admit`` is called only while ``under_way`` is not
    empty, and ``start`` once a frame suspends.
    """

    __slots__ = ("_bytes", "_ids", "_lanes", "_limits", "_ready", "_waiting", "under_way", "unique_ids")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.unique_ids = True  # whether an id in flight is refused; else it finds the first frame that has it
        # Suspended, or begun after they had to wait. A dict for a set: empty, it takes a third of the memory.
        self.under_way: dict[Frame, None] = {}
        self._lanes: dict[str, deque[Frame] | None] = {}  # key of a frame under way or in `_ready` -> those behind it
        self._ready: deque[Frame] | None = None  # these wait only for one of max_concurrency
        self._ids: dict[str | int, Frame] = {}  # of all that are under way or wait
        self._waiting = 0  # in lanes and in `_ready`
        self._bytes = 0  # of those, as they came

    def admit(self, frame: Frame, size: int) -> bool:
        """Whether a new frame runs now, if only to be answered with its error; else it waits.

        ``size``: of its text, in characters.
        """
        if frame.error is not None:
            return True
        if frame.request_id is not None and frame.request_id in self._ids and self.unique_ids:
            return _refuse(frame, DuplicateRequestID(ctx={"request_id": frame.request_id}))
        if frame.action is not None and frame.action.startswith("$"):  # the protocol's own wait for nothing
            return True
        key = frame.key
        behind = key is not None and key in self._lanes
        if not behind and len(self.under_way) < self._limits.max_concurrency:
            return True
        limits = self._limits
        if self._waiting >= limits.max_queued_actions:
            return _refuse(frame, Busy(ctx={"limit": "max_queued_actions", "value": limits.max_queued_actions}))
        if self._waiting and self._bytes + size > limits.max_queued_bytes:
            return _refuse(frame, Busy(ctx={"limit": "max_queued_bytes", "value": limits.max_queued_bytes}))
        self._waiting += 1
        self._bytes += size
        frame.size = size
        if frame.request_id is not None:
            self._ids.setdefault(frame.request_id, frame)
        if behind:
            lane = self._lanes[key]  # type: ignore[index]  # behind: it has one
            if lane is None:
                lane = self._lanes[key] = deque()  # type: ignore[index]
            lane.append(frame)
        else:
            if key is not None:
                self._lanes[key] = None
            self._add_ready(frame)
        return False

    def start(self, frame: Frame) -> None:
        """A frame is under way."""
        self.under_way[frame] = None
        if frame.request_id is not None:
            self._ids.setdefault(frame.request_id, frame)
        if frame.key is not None:
            self._lanes.setdefault(frame.key, None)

    def finish(self, frame: Frame) -> None:
        """A frame has ended: the next of its lane is ready, and a place is free."""
        self.under_way.pop(frame, None)
        self.release(frame)

    def release(self, frame: Frame) -> None:
        """Gives up a frame's id and its place in the order, but not its place among those under way."""
        if self._ids.get(frame.request_id) is frame:  # type: ignore[arg-type]  # None is never in it
            del self._ids[frame.request_id]  # type: ignore[arg-type]
        if frame.key is not None:
            self._leave_lane(frame.key)
            frame.key = None

    def start_next(self) -> Frame | None:
        """The next frame that may start; it is under way from now on. None: there is none, or no place."""
        if not self._ready or len(self.under_way) >= self._limits.max_concurrency:
            return None
        frame = self._ready.popleft()
        self._waiting -= 1
        self._bytes -= frame.size
        self.start(frame)
        return frame

    def find(self, request_id: str | int) -> Frame | None:
        """The frame under way or waiting that has this id; ids compare by type and value."""
        return self._ids.get(request_id)

    def withdraw(self, frame: Frame) -> bool:
        """Takes a frame out of where it waits, and says whether it did wait."""
        lane = None if frame.key is None else self._lanes.get(frame.key)
        if lane and frame in lane:
            lane.remove(frame)
            frame.key = None  # the lane goes on without it
        elif not (self._ready and frame in self._ready):
            return False
        else:
            self._ready.remove(frame)
        self._waiting -= 1
        self._bytes -= frame.size
        self.release(frame)
        return True

    def withdraw_all(self) -> list[Frame]:
        """Takes out all that wait, each lane's in order."""
        waiting = [*(self._ready or ()), *(frame for lane in self._lanes.values() for frame in lane or ())]
        for frame in waiting:
            self.withdraw(frame)
        return waiting

    def clear(self) -> None:
        """Drops all that wait: the connection has ended."""
        self._lanes.clear()
        self._ids.clear()
        self._ready = None
        self._waiting = self._bytes = 0

    def _add_ready(self, frame: Frame) -> None:
        if self._ready is None:
            self._ready = deque()
        self._ready.append(frame)

    def _leave_lane(self, key: str) -> None:
        """The lane's first frame is gone: the next one waits for a place only."""
        if lane := self._lanes.get(key):
            self._add_ready(lane.popleft())
        else:
            self._lanes.pop(key, None)


def _refuse(frame: Frame, error: APIError) -> bool:
    frame.refuse(error)
    return True
