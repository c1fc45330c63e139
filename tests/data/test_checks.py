"""How many cases are decoded at once."""

import os
from pathlib import Path

from segexp.data.cases import Listed
from segexp.data.checks import THREADS, threads_for


def listed(folder: Path, size: int) -> Listed:
    image = folder / f"{size}.nii.gz"
    with image.open("wb") as file:
        file.truncate(size)  # no bytes on disk
    return Listed(str(size), str(size), image, {})


def test_large_volumes_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    cores = min(os.cpu_count() or 1, THREADS)
    assert threads_for([listed(tmp_path, 1000), listed(tmp_path, 2000)]) == cores
    assert threads_for([listed(tmp_path, 1000), listed(tmp_path, 2**40)]) == 1
    assert threads_for([Listed("a", "a", tmp_path / "missing.nii.gz", {})]) == cores
    assert threads_for([]) == cores
