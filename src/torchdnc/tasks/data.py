"""Where data is found, what of it is there, and how the bAbI data is fetched."""

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from torchdnc.tasks.download import Progress, download, extract, git_blob_sha1

BABI = "tasks_1-20_v1-2"
BABI_URLS = (
    f"http://www.thespermwhale.com/jaseweston/babi/{BABI}.tar.gz",
    f"https://s3.amazonaws.com/text-datasets/babi_{BABI}.tar.gz",
)


class Status(NamedTuple):
    """What is found of a set of files; names are relative to the folder."""

    folder: Path
    present: tuple[str, ...]
    absent: tuple[str, ...]
    altered: tuple[str, ...]
    """Files whose content is not the official one."""

    @property
    def complete(self) -> bool:
        """Whether every file is there as published."""
        return not self.absent and not self.altered


def data_root(data_dir: Path | None = None) -> Path:
    """The folder of all data: `data_dir`, else $TORCHDNC_DATA, else torchdnc in the user's cache folder."""
    if data_dir is not None:
        return Path(data_dir).expanduser()
    if named := os.environ.get("TORCHDNC_DATA"):
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "torchdnc"


def babi_folder(data_dir: Path | None = None) -> Path:
    """The folder that holds en, en-10k and en-valid-10k, or where they would be placed.

    `data_dir` (see `data_root`) may be the folder that holds `babi`, the folder `babi`, or the result itself.
    """
    root = data_root(data_dir)
    places = (root / "babi" / BABI, root / BABI, root)
    return next((place for place in places if any(place.glob("en*/qa*.txt"))), places[0])


def babi_manifest() -> dict[str, str]:
    """The git blob SHA-1 of every official file that is used, by its name below `babi_folder`."""
    lines = resources.files("torchdnc.tasks.babi").joinpath("manifest.txt").read_text("ascii").splitlines()
    return {name: sha for sha, name in (line.split() for line in lines)}


def babi_status(data_dir: Path | None = None, *, manifest: Mapping[str, str] | None = None) -> Status:
    """Which official bAbI files are present, absent, or altered; reads them all (36 MB)."""
    folder, manifest = babi_folder(data_dir), babi_manifest() if manifest is None else manifest
    found = {name: folder / name for name in manifest if (folder / name).is_file()}
    altered = [name for name, path in found.items() if git_blob_sha1(path.read_bytes()) != manifest[name]]
    return Status(
        folder,
        present=tuple(name for name in found if name not in altered),
        absent=tuple(name for name in manifest if name not in found),
        altered=tuple(altered),
    )


def fetch_babi(
    data_dir: Path | None = None,
    *,
    progress: Progress | None = None,
    urls: Sequence[str] = BABI_URLS,
    manifest: Mapping[str, str] | None = None,
) -> Path:
    """Make the bAbI data complete and return its folder; nothing is downloaded when it is complete already.

    A broken download is resumed, by a later call too. Only files that are absent or altered are placed, each
    after its SHA-1 is verified; the archive is deleted in the end.

    Args:
        data_dir: see `data_root`.
        progress: called with the bytes downloaded and the total, or None where the server does not tell it.
        urls: addresses of the archive, tried in order.
        manifest: git blob SHA-1 by file name; the official one if None.

    Raises:
        ConnectionError: no address gave a whole and sound archive; says why for each.
        PermissionError: the folder cannot be written to.
    """
    manifest = babi_manifest() if manifest is None else manifest
    status = babi_status(data_dir, manifest=manifest)
    wanted = {name: manifest[name] for name in status.absent + status.altered}
    if not wanted:
        return status.folder
    _make_writable(status.folder)
    failures = []
    for url in urls:
        try:
            _fetch(url, status.folder, wanted, progress)
            return status.folder
        except (ConnectionError, ValueError) as error:
            failures.append(f"{url}: {error}")
    raise ConnectionError(
        f"the bAbI data could not be fetched ({'; '.join(failures)}); the content of a {BABI}.tar.gz from "
        f"elsewhere belongs in {status.folder}"
    )


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(f"data_dir must be writable, got {folder} ({error.strerror})") from None
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"data_dir must be writable, got {folder}, which is not")


def _fetch(url: str, folder: Path, wanted: Mapping[str, str], progress: Progress | None) -> None:
    archive = folder / f"{PurePosixPath(urlsplit(url).path).name}.part"
    download(url, archive, progress)
    try:
        extract(archive, BABI, folder, wanted)
    except ValueError:
        archive.unlink()
        raise
    archive.unlink()
