"""Processes that do not outlive the one that started them."""

import multiprocessing
import multiprocessing.connection
import os
import threading


def end_with_parent():
    """Let this process end as soon as its parent has ended, however that happened.

    Python's pools end their workers in the parent's last lines, which a killed parent never
    reaches: its workers would go on, each with a core to itself.
    """
    parent = multiprocessing.parent_process()
    threading.Thread(target=_wait_and_end, args=(parent.sentinel,), daemon=True).start()


def _wait_and_end(sentinel):
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
