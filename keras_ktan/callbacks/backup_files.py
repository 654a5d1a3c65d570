"""The newest two states of a training on the disk."""

import os
import pathlib
import warnings

from keras_ktan.utils.atomic_file import remove_unfinished, write_atomically
from keras_ktan.utils.state_file import DamagedFileError, read_state, write_state

FORMAT = 1


class BackupFiles:
    """A file with the newest state, and beside it the one before.

    At every moment at least one whole state is on the disk under one of the two names.

    Args:
        filepath: Path of the newest one. The one before is called `filepath` + `".previous"`.
    """

    def __init__(self, filepath):
        self.newest = pathlib.Path(filepath)
        self.previous = self.newest.with_name(f"{self.newest.name}.previous")
        self._newest_is_whole = False

    def read(self):
        """The newest state that is whole.

        Returns:
            A tuple of its description and its arrays, or `None` where there is no file.

        Raises:
            ValueError: If there are files and none is whole, or if another version wrote them.
        """
        damaged = []
        for path in (self.newest, self.previous):
            if not os.path.lexists(path):
                continue
            try:
                description, arrays = read_state(path)
            except DamagedFileError as error:
                damaged.append(f"'{path}': {error}")
                continue
            if description.get("format") != FORMAT:
                raise ValueError(
                    f"Received a backup in format {description.get('format')!r}, '{path}'. "
                    f"Expected format {FORMAT}. Go on with the version of keras_ktan that wrote "
                    "it, or delete the file to begin anew."
                )
            self._newest_is_whole = path == self.newest
            if damaged:
                warnings.warn(
                    f"The newest backup is damaged ({damaged[0]}). The training goes on from the "
                    f"one before it: epoch {description['epoch'] + 1}, batch "
                    f"{description['batch'] + 1}.",
                    stacklevel=2,
                )
            return description, arrays
        if damaged:
            raise ValueError(
                f"Received backups of which none is whole ({'; '.join(damaged)}). Expected what a "
                "ResumableBackup wrote. Bring a good copy back, or delete these files to begin "
                "anew; if they are no backups, choose another `filepath`."
            )
        return None

    def make_room(self):
        """Make the folder, and remove what a killed process left there."""
        self.newest.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.newest)

    def write(self, description, arrays):
        """Write a new state; the newest one so far becomes the one before.

        Args:
            description: Dict of what JSON can hold.
            arrays: List of NumPy arrays.
        """

        def write(beside):
            write_state(beside, {"format": FORMAT, **description}, arrays)
            # A damaged one must not take the place of the good one before it.
            if self._newest_is_whole:
                os.replace(self.newest, self.previous)
                self._newest_is_whole = False

        write_atomically(self.newest, write)
        self._newest_is_whole = True

    def delete(self):
        """Remove both, the older one first: what a kill leaves is the newest one."""
        self.previous.unlink(missing_ok=True)
        self.newest.unlink(missing_ok=True)
        self._newest_is_whole = False
