"""Start trainings in processes of their own and kill them at random moments: a script.

Arguments: folder, number of kills, seed. One process imports Keras and computes nothing; each
training is a fork of it, so that a kill costs a second and no import. It prints one line of JSON:
the moments, what each killed process had reached, and whether all weights were equal.
"""

import json
import os
import pathlib
import random
import signal
import sys
import time

import numpy as np
from resumable_training import everything, make_distiller, train

from keras_ktan.callbacks import ResumableBackup

EPOCHS = 6
# So that writing is a good part of the time.
UNITS = 500


def run(folder, result):
    """One process: train from what is on the disk, and write the weights at the end."""
    distiller = make_distiller(units=UNITS, run_eagerly=True)
    (folder / "begun").touch()
    train(distiller, ResumableBackup(folder / "run.backup", save_freq=1), epochs=EPOCHS)
    beside = result.with_name("beside.npz")
    np.savez(beside, *everything(distiller))
    os.replace(beside, result)


def start(folder, result):
    """Fork such a process."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "begun").unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            run(folder, result)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid


def wait_for_begin(folder, pid):
    """Building the models is not what is to be killed."""
    while not (folder / "begun").exists():
        if os.waitpid(pid, os.WNOHANG)[0]:
            raise RuntimeError("the process ended before it trained")
        time.sleep(0.01)


def finish(pid):
    """Wait; it must end by itself and well."""
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"a training ended with status {status}")


def main(folder, kills, seed):
    whole = folder / "whole"
    pid = start(whole, whole / "result.npz")
    wait_for_begin(whole, pid)
    begun = time.monotonic()
    finish(pid)
    duration = time.monotonic() - begun
    expected = np.load(whole / "result.npz")
    chance = random.Random(seed)
    reports = []
    for number in range(kills):
        own = folder / str(number)
        pid = start(own, own / "result.npz")
        wait_for_begin(own, pid)
        moment = chance.uniform(0.0, 0.9 * duration)
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        left = sorted(path.name for path in own.iterdir())
        finish(start(own, own / "result.npz"))
        found = np.load(own / "result.npz")
        equal = found.files == expected.files and all(
            np.array_equal(found[name], expected[name]) for name in expected.files
        )
        killed = os.WIFSIGNALED(status)
        reports.append({"moment": moment, "killed": killed, "left": left, "equal": equal})
    print(json.dumps({"duration": duration, "reports": reports}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
