"""Real data, where it is."""

from pathlib import Path

import pytest

from torchdnc.tasks.data import babi_folder, data_root


@pytest.fixture(scope="session")
def babi_data() -> Path:
    """The folder tasks_1-20_v1-2 of the real bAbI data."""
    folder = babi_folder()
    if not (folder / "en-10k").is_dir():
        pytest.skip(
            f"there is no bAbI data in {data_root()}: set TORCHDNC_DATA to the folder that holds `babi`, "
            "or fetch it with `torchdnc data babi`"
        )
    return folder
