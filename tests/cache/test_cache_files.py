"""What lies on the disk: damage, links, several processes, and readers while it is written."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from helpers import assert_three_parts
from small_caches import COUNT, array_file, small_cache, small_teacher, vectors

from keras_ktan.cache.array_files import array_entry, create_array, open_array, write_rows
from keras_ktan.cache.files import CacheFiles
from keras_ktan.cache.lock import fill_lock

pytestmark = pytest.mark.reliability


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory):
    directory = tmp_path_factory.mktemp("filled")
    small_cache(directory).fill(vectors(), verbose=0)
    return directory


@pytest.fixture
def directory(filled_once, tmp_path):
    return shutil.copytree(filled_once, tmp_path / "cache")


def refused(directory, *words, method="dataset"):
    arguments = {"verbose": 0} if method == "fill" else {}
    with pytest.raises(ValueError) as error:
        getattr(small_cache(directory), method)(vectors(), **arguments)
    assert_three_parts(error.value, *words)


def test_numpy_reads_what_was_written_and_every_type_comes_back(tmp_path):
    for number, dtype in enumerate(("bool", "int8", "uint8", "int64", "float16", "float32")):
        entry = array_entry(f"0123abcd-array_{number}.npy", (5, 2, 3), dtype)
        rows = np.arange(30).reshape(5, 2, 3).astype(dtype)
        create_array(tmp_path, entry)
        write_rows(tmp_path, entry, 3, rows[3:])
        write_rows(tmp_path, entry, 0, rows[:3][::-1][::-1])
        for read in (np.load(tmp_path / entry["file"]), open_array(tmp_path, entry, "")):
            assert read.dtype == dtype
            np.testing.assert_array_equal(read, rows)


DAMAGES = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 4),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 4),
    "empty": lambda path: os.truncate(path, 0),
    "missing": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "another": lambda path: np.save(path, np.zeros((COUNT, 2))),
    "half-written": lambda path: path.write_bytes(path.read_bytes()[:-40] + bytes(40)),
    "pickled": lambda path: np.save(path, np.array([{}] * COUNT), allow_pickle=True),
    # The tokenizer of NumPy's own reader fails on the first, the parser on the second.
    "header": lambda path: path.write_bytes(path.read_bytes().replace(b"{'descr'", b"{('''xxx", 1)),
    "nested": lambda path: path.write_bytes(path.read_bytes()[:10] + b"(" * 118),
    "shape": lambda path: path.write_bytes(path.read_bytes().replace(b"(20, ", b"(-2, ", 1)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(damage, directory):
    path = array_file(directory, "view_1_array_1")
    DAMAGES[damage](path)
    refused(directory, "view_1_array_1.npy", "Expected", "Delete the directory")


def changed(content, path, value):
    """A copy of JSON with another value at a path of keys; `KeyError` as value removes it."""
    content = json.loads(json.dumps(content))
    *way, last = path
    place = content
    for key in way:
        place = place[key]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return content


KEYS = [
    (("key",), KeyError),
    (("key",), []),
    (("arrays",), KeyError),
    (("arrays",), []),
    (("arrays",), {"a": 1}),
    (("arrays", 0), None),
    (("arrays", 0, "file"), "../victim.npy"),
    (("arrays", 0, "file"), "/victim.npy"),
    (("arrays", 0, "file"), 3),
    (("arrays", 0, "view"), ["plain"]),
    (("arrays", 0, "name"), KeyError),
    (("arrays", 0, "name"), "others:0"),
    (("arrays", 0, "shape"), "20"),
    (("arrays", 0, "shape"), [COUNT, -1]),
    (("arrays", 0, "shape"), [COUNT + 1, 2]),
    (("arrays", 0, "shape"), [True, 2]),
    (("arrays", 0, "dtype"), "O"),
    (("arrays", 0, "dtype"), {}),
    (("key", "layers"), KeyError),
    (("key", "layers"), [["hidden"]]),
    (("key", "layers"), ["hidden", "other"]),
    (("key", "views"), None),
    (("key", "images"), 20),
    (("key", "images", "count"), "20"),
]


@pytest.mark.parametrize("method", ["fill", "dataset"])
def test_a_key_that_was_changed_is_refused_and_nothing_outside_is_written(directory, method):
    victim = directory.parent / "victim.npy"
    victim.write_bytes(b"precious")
    path = directory / "key.json"
    content = json.loads(path.read_text())
    for way, value in KEYS:
        path.write_text(json.dumps(changed(content, way, value)))
        refused(directory, "key.json", "Expected", "Delete the directory", method=method)
    twice = changed(content, ("arrays", 1), content["arrays"][0])
    for text in (json.dumps(twice), "[" * 100_000, "nonsense", "[]", '"key"', "\xff"):
        path.write_text(text, encoding="latin-1")
        refused(directory, "key.json", "Expected", "Delete the directory", method=method)
    assert victim.read_bytes() == b"precious"


CHUNKS = [
    (("view",), "another"),
    (("view",), ["plain"]),
    (("start",), KeyError),
    (("start",), 1),
    (("start",), "0"),
    (("start",), False),
    (("stop",), COUNT + 1),
    (("stop",), 0),
    (("stop",), 3.0),
    (("checksums",), KeyError),
    (("checksums",), {}),
    (("checksums",), {"../victim.npy": 3}),
]


def test_a_list_of_chunks_that_was_changed_is_refused(directory):
    path = directory / "chunks.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    for way, value in CHUNKS:
        path.write_text("".join([json.dumps(changed(json.loads(first), way, value)), "\n"]))
        refused(directory, "chunks.jsonl", "one finished chunk", "Delete the directory")
    for text in ("{\n", "3\n", "null\n", first + first, first + others[1]):
        path.write_text(text)
        refused(directory, "chunks.jsonl", "Expected", "Delete the directory")


def test_a_list_of_another_format_is_refused(directory):
    path = directory / "key.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format": 4}))
    refused(directory, "has format 4", "Expected 3", "Delete the directory", method="fill")


@pytest.mark.parametrize("name", ["key.json", "chunks.jsonl", "view_0_array_0"])
def test_a_file_that_may_not_be_read_is_no_damage(name, directory, monkeypatch):
    path = directory / name if "." in name else array_file(directory, name)

    def denied(function):
        def guarded(self, *arguments, **keywords):
            if os.fspath(self) == str(path):
                raise PermissionError(13, "Permission denied")
            return function(self, *arguments, **keywords)

        return guarded

    # The tests may run as a user who may read everything.
    monkeypatch.setattr("pathlib.Path.read_bytes", denied(type(path).read_bytes))
    monkeypatch.setattr("keras_ktan.cache.array_files.open", denied(open), raising=False)
    with pytest.raises(ValueError) as error:
        small_cache(directory).dataset(vectors())
    assert_three_parts(error.value, path.name, "may read", "Change its permissions")
    assert "Delete" not in str(error.value)


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", ["chunks.jsonl", "view_0_array_0", "fill.lock"])
def test_links_are_not_followed_when_it_is_written(name, link, directory):
    os.truncate(directory / "chunks.jsonl", 0)
    path = directory / name if "." in name else array_file(directory, name)
    victim = directory.parent / "victim"
    victim.write_bytes(path.read_bytes())
    before = victim.read_bytes()
    path.unlink()
    link(victim, path)
    refused(directory, "is a link", "Expected a file", "Delete the link", method="fill")
    assert victim.read_bytes() == before


def test_a_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is a file", "a directory", "another path", method="fill")


def process_that_holds(directory):
    """The number of another process that holds the lock until it is killed."""
    reading, writing = os.pipe()
    pid = os.fork()  # a new interpreter would import Keras for seconds
    if pid == 0:
        with fill_lock(directory):
            os.write(writing, b"holds")
            signal.pause()
    assert os.read(reading, 5) == b"holds"
    return pid


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_second_process_is_told_who_fills_and_a_dead_one_blocks_nobody(directory):
    os.truncate(directory / "chunks.jsonl", 0)
    other = process_that_holds(directory)
    try:
        refused(directory, f"process {other} on", "one process", "Wait", method="fill")
        assert CacheFiles(directory).chunks(CacheFiles(directory).read_key()[1]) == []
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    cache = small_cache(directory)
    cache.fill(vectors(), verbose=0)  # it left its file and not its lock
    assert len(cache.dataset(vectors(), batch_size=COUNT)) == 1


def test_who_only_reads_needs_no_lock(directory):
    with fill_lock(directory):
        cache = small_cache(directory)
        cache.fill(vectors(), verbose=0)
        assert len(cache.dataset(vectors(), batch_size=COUNT)) == 1


def test_a_reader_keeps_what_it_opened(directory):
    dataset = small_cache(directory).dataset(vectors(), batch_size=COUNT, shuffle=False)
    before = [np.array(array) for array in _leaves(dataset[0])]
    (directory / "key.json").unlink()
    other = small_cache(directory, teacher=small_teacher(seed=5))
    other.fill(vectors(), verbose=0)
    for array, kept in zip(_leaves(dataset[0]), before, strict=True):
        np.testing.assert_array_equal(array, kept)
    # What no list names any more is not left behind: two arrays in two views.
    assert len(list(directory.glob("*.npy"))) == 4


def _leaves(batch):
    (x,) = batch
    (parts,) = x.values()
    return [parts[name] for name in sorted(parts)]


def test_fill_looks_at_what_it_wrote(tmp_path, monkeypatch):
    write = CacheFiles.write

    def spoil(self, arrays, view, start, values):
        write(self, arrays, view, start, values)
        if view == "turned" and start == 16:
            path = self.directory / arrays[0]["file"]
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    monkeypatch.setattr(CacheFiles, "write", spoil)
    with pytest.raises(ValueError, match="something else in rows 16 to 19"):
        small_cache(tmp_path / "spoilt").fill(vectors(), verbose=0)
    monkeypatch.setattr(CacheFiles, "write", lambda *arguments: None)
    with pytest.raises(ValueError, match="holds 0 of 40 images"):
        small_cache(tmp_path / "nothing").fill(vectors(), verbose=0)
