"""Batches that threads read before they are asked for."""

import concurrent.futures
import threading


class ReadAhead:
    """Reads what comes next in threads of its own; the order is that of the questions.

    Keras's `workers` of a `PyDataset` leave batches of its first look at the data in a queue, so
    that epochs on torch begin with those of the epoch before (Keras 3.15.1).

    Args:
        read: Function from an epoch's number and a batch's to the batch.
        workers: Number of threads.
    """

    def __init__(self, read, workers):
        self._read = read
        self._pool = concurrent.futures.ThreadPoolExecutor(workers)
        self._waiting = {}
        self._lock = threading.Lock()
        self._count = 2 * workers

    def get(self, epoch, index, batches):
        """A batch, while those behind it are being read.

        Args:
            epoch: The epoch's number.
            index: The batch's number.
            batches: How many batches the epoch has.

        Returns:
            What `read` returned.
        """
        following = [(epoch, i) for i in range(index, min(index + self._count, batches))]
        with self._lock:
            # What is asked for no more is forgotten.
            self._waiting = {
                place: self._waiting.get(place) or self._pool.submit(self._read, *place)
                for place in following
            }
            future = self._waiting.pop((epoch, index))
        return future.result()

    def forget(self):
        """Read anew what was read ahead."""
        with self._lock:
            self._waiting = {}
