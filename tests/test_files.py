"""Checksums of files; writing is tested in tests/workflow/test_faults.py."""

import hashlib
import os
from pathlib import Path

from merba.files import checksum


def test_a_checksum_is_read_once_until_time_or_size_of_the_file_changes(tmp_path, monkeypatch):
    path, opened, open_ = tmp_path / "pack.npy", [], Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: opened.append(self) or open_(self, mode))

    def write(content, time):
        path.write_bytes(content)
        os.utime(path, (time, time))
        opened.clear()
        return hashlib.sha256(content).hexdigest()

    for content, time in ((b"flow", 1), (b"flux", 2), (b"flow and more", 2)):
        expected = write(content, time)
        assert [checksum(path), checksum(path)] == [expected] * 2
        assert len(opened) == 1
