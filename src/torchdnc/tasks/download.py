"""A download that can be resumed, and the safe unpacking of what came."""

import gzip
import hashlib
import http.client
import os
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

Progress = Callable[[int, int | None], None]
"""Called with the bytes there so far and the total, or None where the server does not tell it."""

CHUNK = 1 << 16
TIMEOUT_S = 30
# Far above any bAbI file (10 MB): what claims more is no file to read into memory.
LARGEST_MEMBER = 1 << 27


def download(url: str, target: Path, progress: Progress | None = None) -> None:
    """Bring `target` to the whole content of `url`, going on from the bytes that it holds already.

    A connection that breaks is opened again for as long as each attempt brings something.

    Raises:
        ConnectionError: the server cannot be reached, refuses, or breaks off at once; what came is kept.
    """
    while True:
        before = _size(target)
        failure = _attempt(url, target, progress)
        if failure is None:
            return
        if _size(target) <= before:
            raise ConnectionError(failure)


def _attempt(url: str, target: Path, progress: Progress | None) -> str | None:
    """One connection; returns what went wrong, or None when the file is whole."""
    start = _size(target)
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urlopen(request, timeout=TIMEOUT_S) as response:
            return _receive(response, target, start if response.status == 206 else 0, progress)
    except HTTPError as error:
        if error.code == 416 and start:
            return _beyond_end(error, url, target, progress)
        return f"the server answered {error.code} {error.reason}"
    except URLError as error:
        return f"the server cannot be reached ({error.reason})"
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        return f"the connection broke ({error!r})"


def _beyond_end(error: HTTPError, url: str, target: Path, progress: Progress | None) -> str | None:
    """The server has no more: the file is whole, or what lies there is of another one and starts anew."""
    if error.headers.get("Content-Range") == f"bytes */{_size(target)}":
        return None
    target.unlink()
    return _attempt(url, target, progress)


def _receive(response: http.client.HTTPResponse, target: Path, start: int, progress: Progress | None) -> str | None:
    total = None if response.length is None else start + response.length
    with target.open("ab" if start else "wb") as file:
        while chunk := response.read(CHUNK):
            file.write(chunk)
            if progress is not None:
                progress(file.tell(), total)
        end = file.tell()
    return None if total in (None, end) else f"the connection broke after {end} of {total} bytes"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def git_blob_sha1(content: bytes) -> str:
    """What `git hash-object` prints for a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def extract(archive: Path, prefix: str, folder: Path, wanted: Mapping[str, str]) -> None:
    """Place the wanted members of a tar archive in a folder, each at once and whole, and nothing else.

    Args:
        archive: a gzipped tar file, trusted in nothing.
        prefix: the folder in the archive that `folder` stands for.
        folder: where the files go.
        wanted: git blob SHA-1 by name below the prefix; members not named here are never written.

    Raises:
        ValueError: the archive is damaged or lacks a wanted file, or a wanted member is no regular file or
            does not have its SHA-1. Sound members may have been placed by then.
    """
    missing = dict(wanted)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = _below(prefix, member.name)
                if name in missing:
                    _place(folder / name, _content(tar, member, missing.pop(name)))
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"the archive is damaged ({error})") from error
    if missing:
        raise ValueError(f"the archive lacks {', '.join(sorted(missing))}")


def _below(prefix: str, name: str) -> str:
    path = PurePosixPath(name)
    return str(path.relative_to(prefix)) if path.is_relative_to(prefix) else ""


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, sha1: str) -> bytes:
    file = tar.extractfile(member) if member.isreg() and member.size <= LARGEST_MEMBER else None
    if file is None:
        raise ValueError(f"the archive's {member.name} is no regular file of at most {LARGEST_MEMBER} bytes")
    content = file.read()
    if git_blob_sha1(content) != sha1:
        raise ValueError(
            f"the archive's {member.name} must have the git blob SHA-1 {sha1}, got {git_blob_sha1(content)}"
        )
    return content


def _place(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
