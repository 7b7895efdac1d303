"""Offsets to commit when messages end in another order than they began."""

import threading


class Positions:
    """Open messages per partition, and the offset up to which everything before is done. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, set[int]] = {}
        self._next: dict[int, int] = {}
        """Per partition: the offset after the highest that began."""
        self._committed: dict[int, int] = {}

    def begin(self, partition: int, offset: int) -> bool:
        """Note that work on a message begins; False when it is open already.

        An offset below those that began means that the partition starts again (its topic was made anew, or the
        group's position was set back): what is open then belongs to the past.
        """
        with self._lock:
            open_offsets = self._open.setdefault(partition, set())
            if offset in open_offsets:
                return False
            if offset < self._next.get(partition, 0):
                open_offsets.clear()
                self._committed[partition] = offset
            open_offsets.add(offset)
            self._next[partition] = offset + 1
            self._committed.setdefault(partition, offset)
            return True

    def end(self, partition: int, offset: int) -> None:
        """Note that a message is done; nothing happens if its partition was given away meanwhile."""
        with self._lock:
            self._open.get(partition, set()).discard(offset)

    def is_open(self, partition: int, offset: int) -> bool:
        """Whether a message has begun and not ended, and its partition is still ours."""
        with self._lock:
            return offset in self._open.get(partition, ())

    def open_count(self) -> int:
        """Return how many messages are open."""
        with self._lock:
            return sum(map(len, self._open.values()))

    def advanced(self, partitions: set[int] | None = None) -> dict[int, int]:
        """Offsets to commit, of partitions that came further since the last call: the first not done."""
        with self._lock:
            moved: dict[int, int] = {}
            for partition, following in self._next.items():
                if partitions is not None and partition not in partitions:
                    continue
                position = min(self._open[partition], default=following)
                if position > self._committed[partition]:
                    moved[partition] = position
                    self._committed[partition] = position
            return moved

    def forget(self, partitions: set[int]) -> None:
        """Drop partitions that another member works on from now on."""
        with self._lock:
            for partition in partitions:
                self._open.pop(partition, None)
                self._next.pop(partition, None)
                self._committed.pop(partition, None)
