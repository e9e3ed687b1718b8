"""`segzero_core.files`: a file is written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from segzero_core.files import write_atomically


@pytest.mark.parametrize("data", ["größer\n", "größer\n".encode()], ids=["text", "bytes"])
def test_text_and_bytes_are_written(tmp_path: Path, data: str | bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("old", encoding="utf-8")

    write_atomically(path, data, fsync=True)

    assert path.read_text(encoding="utf-8") == "größer\n"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"old")

    def write(beside: Path) -> None:
        beside.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        beside.write_bytes(b"whole")

    write_atomically(path, write)

    assert path.read_bytes() == b"whole"


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"old")

    def fill_the_disk(beside: Path) -> None:
        beside.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, fill_the_disk)

    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["weights.bin"]


def test_the_file_has_the_usual_permissions(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()

    def write_for_the_owner_only(beside: Path) -> None:
        beside.unlink()
        os.close(os.open(beside, os.O_CREAT | os.O_WRONLY, 0o600))

    write_atomically(tmp_path / "weights.bin", write_for_the_owner_only)

    assert (tmp_path / "weights.bin").stat().st_mode == usual.stat().st_mode


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "notes.txt", "new")

    assert os.listdir(tmp_path) == []
