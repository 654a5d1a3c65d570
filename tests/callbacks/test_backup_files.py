"""Files of a backup: every damage is found, and at every moment a whole one is there."""

import os
import pathlib

import ml_dtypes
import numpy as np
import pytest
from helpers import assert_three_parts

from keras_ktan.callbacks.backup_files import BackupFiles
from keras_ktan.utils.state_file import DamagedFileError, read_state, write_state

ARRAYS = [
    np.arange(6, dtype="float32").reshape(2, 3),
    np.array([np.nan, -0.0, np.inf]),
    np.array([1.5, -2.0], ml_dtypes.bfloat16),
    np.array([2**32 - 1, 7], "uint32"),
    np.array(3, "int64"),
    np.zeros((0, 4), "float16"),
    np.asfortranarray(np.arange(4.0).reshape(2, 2)),
    np.array([True, False]),
]


def description(epoch):
    return {"epoch": epoch, "batch": 0}


def test_every_array_comes_back_with_its_bits(tmp_path):
    write_state(tmp_path / "state", {"epoch": 3, "what": "ä"}, ARRAYS)
    found, arrays = read_state(tmp_path / "state")
    assert found == {"epoch": 3, "what": "ä"}
    for one, other in zip(ARRAYS, arrays, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()


@pytest.mark.reliability
def test_every_changed_byte_and_every_cut_are_found(tmp_path):
    path = tmp_path / "state"
    write_state(path, description(0), ARRAYS)
    content = path.read_bytes()
    for place in range(len(content)):
        for damaged in (
            content[:place],
            content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :],
        ):
            path.write_bytes(damaged)
            with pytest.raises(DamagedFileError):
                read_state(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(DamagedFileError):
        read_state(path)


class Killed(BaseException):
    """No more of the process runs, `finally` included, as far as a test can."""


def calls_of_a_write(monkeypatch, die_at):
    """Let a process die at its n-th call that the disk sees; nothing is cleaned up then."""
    count = 0

    def counted(function):
        def call(*arguments, **named):
            nonlocal count
            count += 1
            if count == die_at:
                raise Killed
            if count > die_at:  # dead
                return None
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(os, "replace", counted(os.replace))
    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(pathlib.Path, "unlink", counted(pathlib.Path.unlink))


@pytest.mark.reliability
@pytest.mark.parametrize("die_at", range(1, 6))
def test_a_kill_while_writing_leaves_the_new_state_or_the_one_before(die_at, tmp_path, monkeypatch):
    path = tmp_path / "folder" / "run.backup"
    files = BackupFiles(path)
    files.make_room()
    for epoch in (0, 1):
        files.write(description(epoch), ARRAYS)
    with monkeypatch.context() as patch:
        calls_of_a_write(patch, die_at)
        with pytest.raises(Killed):
            files.write(description(2), ARRAYS)
    after = BackupFiles(path)
    after.make_room()
    assert not [name for name in os.listdir(path.parent) if name.startswith(".")]
    found, arrays = after.read()
    # Two renames: before the first it is the old one, between them, too, then the new one.
    assert found["epoch"] == (2 if die_at > 4 else 1)
    assert arrays[0].tobytes() == ARRAYS[0].tobytes()


def test_a_damaged_newest_one_never_takes_the_place_of_the_good_one(tmp_path):
    files = BackupFiles(tmp_path / "run.backup")
    for epoch in (0, 1):
        files.write(description(epoch), ARRAYS)
    files.newest.write_bytes(b"spoilt")
    files = BackupFiles(tmp_path / "run.backup")
    with pytest.warns(UserWarning, match="damaged"):
        assert files.read()[0]["epoch"] == 0
    files.write(description(2), ARRAYS)
    assert read_state(files.newest)[0]["epoch"] == 2
    assert read_state(files.previous)[0]["epoch"] == 0


def test_another_format_is_no_damage(tmp_path):
    write_state(tmp_path / "run.backup", {"format": 2, **description(0)}, [])
    with pytest.raises(ValueError) as error:
        BackupFiles(tmp_path / "run.backup").read()
    assert_three_parts(error.value, "format 2", "Expected format 1", "delete the file")


def test_a_folder_under_the_name_is_no_backup(tmp_path):
    (tmp_path / "run.backup").mkdir()
    with pytest.raises(ValueError, match="cannot be read"):
        BackupFiles(tmp_path / "run.backup").read()
