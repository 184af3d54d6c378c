"""Fetching an archive from a server of this machine that breaks off, forgets or cheats."""

import io
import subprocess
import tarfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from torchdnc.tasks.data import (
    BABI,
    babi_folder,
    babi_manifest,
    babi_status,
    data_root,
    fetch_babi,
)
from torchdnc.tasks.download import download, extract, git_blob_sha1

FILES = {"en/qa1_train.txt": b"1 A b?\tc\n" * 40_000, "en-10k/qa1_test.txt": b"1 D e?\tf\n"}
MANIFEST = {name: git_blob_sha1(content) for name, content in FILES.items()}


def archive(files=FILES, prefix=BABI, extra=()):
    """A gzipped tar file of these files; `extra` are more members, with their content."""
    buffer = io.BytesIO()
    # Uncompressed, so that it is long enough to break off.
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{prefix}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member, content in extra:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@dataclass
class Server:
    """What is served, how, and the Range headers of the requests so far."""

    content: bytes
    breaks_after: list[int] = field(default_factory=list)
    """Bytes sent before the connection breaks, request by request; then none breaks."""
    knows_ranges: bool = True
    tells_length: bool = True
    ranges: list[str | None] = field(default_factory=list)

    @contextmanager
    def running(self):
        state = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                state.answer(self)

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{BABI}.tar.gz"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def answer(self, handler):
        asked = handler.headers.get("Range")
        self.ranges.append(asked)
        if not self.content:
            handler.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.knows_ranges else 0
        if start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            handler.end_headers()
            return
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if self.tells_length:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.breaks_after.pop(0)] if self.breaks_after else body)


def test_whole_file_arrives_and_progress_is_told(tmp_path):
    server, told = Server(bytes(range(256)) * 1000), []
    with server.running() as url:
        download(url, tmp_path / "file", lambda done, total: told.append((done, total)))
    assert (tmp_path / "file").read_bytes() == server.content
    assert told[-1] == (256_000, 256_000)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_length_may_be_unknown(tmp_path):
    server, told = Server(b"abc", tells_length=False), []
    with server.running() as url:
        download(url, tmp_path / "file", lambda done, total: told.append((done, total)))
    assert (tmp_path / "file").read_bytes() == b"abc"
    assert told == [(3, None)]


def test_broken_connection_is_taken_up_where_it_broke(tmp_path):
    server = Server(bytes(range(256)) * 1000, breaks_after=[100_000, 50_000])
    with server.running() as url:
        download(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == server.content
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_connection_that_brings_nothing_ends_the_attempts_and_a_later_call_goes_on(tmp_path):
    server = Server(bytes(range(256)) * 1000, breaks_after=[100_000, 0])
    with server.running() as url:
        with pytest.raises(ConnectionError, match="the connection broke after 100000 of 256000 bytes"):
            download(url, tmp_path / "file")
        assert (tmp_path / "file").stat().st_size == 100_000
        download(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == server.content
    assert server.ranges[-1] == "bytes=100000-"


def test_server_without_ranges_starts_anew(tmp_path):
    server = Server(b"0123456789" * 1000, knows_ranges=False)
    (tmp_path / "file").write_bytes(b"something else")
    with server.running() as url:
        download(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == server.content


def test_file_that_is_whole_already_is_left_as_it_is(tmp_path):
    server = Server(b"0123456789")
    (tmp_path / "file").write_bytes(server.content)
    with server.running() as url:
        download(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == server.content
    assert server.ranges == ["bytes=10-"]


def test_leftover_longer_than_the_file_starts_anew(tmp_path):
    server = Server(b"0123456789")
    (tmp_path / "file").write_bytes(b"x" * 11)
    with server.running() as url:
        download(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == server.content
    assert server.ranges == ["bytes=11-", None]


def test_server_that_is_not_there_is_said(tmp_path):
    with Server(b"").running() as url:
        pass
    with pytest.raises(ConnectionError, match="the server cannot be reached"):
        download(url, tmp_path / "file")


def test_refusal_of_the_server_is_said(tmp_path):
    with (
        Server(b"").running() as url,
        pytest.raises(ConnectionError, match="the server answered 404 Not Found"),
    ):
        download(url, tmp_path / "file")


def unpack(tmp_path, content, wanted=MANIFEST):
    (tmp_path / "archive").write_bytes(content)
    extract(tmp_path / "archive", BABI, tmp_path / "out", wanted)


def found(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_wanted_members_are_placed(tmp_path):
    unpack(tmp_path, archive({**FILES, "hn/qa1_train.txt": b"other"}))
    assert found(tmp_path / "out") == FILES


def test_checksum_is_that_of_git(tmp_path):
    (tmp_path / "file").write_bytes(b"some text\n")
    git = subprocess.run(["git", "hash-object", tmp_path / "file"], capture_output=True, text=True, check=True)
    assert git_blob_sha1(b"some text\n") == git.stdout.strip()


def test_altered_member_is_refused(tmp_path):
    changed = {**FILES, "en-10k/qa1_test.txt": b"1 D e?\tg\n"}
    with pytest.raises(ValueError, match=f"the archive's {BABI}/en-10k/qa1_test.txt must have the git blob SHA-1"):
        unpack(tmp_path, archive(changed))
    assert "en-10k/qa1_test.txt" not in found(tmp_path / "out")


@pytest.mark.parametrize("name", ["../evil.txt", f"{BABI}/../../evil.txt", "/tmp/evil.txt", f"{BABI}/evil.txt"])
def test_member_outside_the_wanted_files_is_never_written(tmp_path, name):
    unpack(tmp_path, archive(extra=[(tarfile.TarInfo(name), b"evil")]))
    assert found(tmp_path / "out") == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "out"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_wanted_member_must_be_a_regular_file(tmp_path, kind):
    member = tarfile.TarInfo(f"{BABI}/en-10k/qa1_test.txt")
    member.type, member.linkname = kind, "/etc/passwd"
    some = {"en/qa1_train.txt": FILES["en/qa1_train.txt"]}
    with pytest.raises(ValueError, match=r"en-10k/qa1_test\.txt is no regular file"):
        unpack(tmp_path, archive(some, extra=[(member, b"")]))
    assert found(tmp_path / "out") == some


def test_absent_member_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"the archive lacks en-10k/qa1_test\.txt"):
        unpack(tmp_path, archive({"en/qa1_train.txt": FILES["en/qa1_train.txt"]}))


@pytest.mark.parametrize(
    "content",
    [archive()[:200_000], b"<html>not found</html>", b"", archive()[:300] + b"\xff" * 40 + archive()[340:]],
)
def test_damaged_archive_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"the archive('s| is damaged)"):
        unpack(tmp_path, content)


def fetch(tmp_path, *urls, **options):
    return fetch_babi(tmp_path, urls=urls, manifest=MANIFEST, **options)


def test_fetch_places_every_file_and_leaves_nothing_else(tmp_path):
    told = []
    with Server(archive()).running() as url:
        folder = fetch(tmp_path, url, progress=lambda done, total: told.append(done / total))
    assert folder == tmp_path / "babi" / BABI == babi_folder(tmp_path)
    assert found(tmp_path) == {f"babi/{BABI}/{name}": content for name, content in FILES.items()}
    assert told[-1] == 1
    assert babi_status(tmp_path, manifest=MANIFEST).complete


def test_fetch_of_complete_data_asks_no_server(tmp_path):
    with Server(archive()).running() as url:
        fetch(tmp_path, url)
    assert fetch(tmp_path, "http://127.0.0.1:1/none.tar.gz") == babi_folder(tmp_path)


def test_fetch_places_what_is_absent_or_altered(tmp_path):
    folder = tmp_path / "babi" / BABI
    for name, content in {"en/qa1_train.txt": b"altered", "en/own.txt": b"mine"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    # Left behind by a process that was killed while it placed a file.
    (folder / "en" / ".qa1_train.txt.tmp").write_bytes(b"half")
    assert babi_status(tmp_path, manifest=MANIFEST) == (
        folder, (), ("en-10k/qa1_test.txt",), ("en/qa1_train.txt",)
    )  # fmt: skip
    with Server(archive()).running() as url:
        fetch(tmp_path, url)
    assert found(folder) == {**FILES, "en/own.txt": b"mine"}


def test_broken_fetch_is_taken_up_by_the_next_one(tmp_path):
    server = Server(archive(), breaks_after=[200_000, 0])
    with server.running() as url:
        with pytest.raises(ConnectionError, match=r"could not be fetched .*broke after 200000 of"):
            fetch(tmp_path, url)
        assert not babi_status(tmp_path, manifest=MANIFEST).present
        fetch(tmp_path, url)
    assert server.ranges == [None, "bytes=200000-", "bytes=200000-"]
    assert babi_status(tmp_path, manifest=MANIFEST).complete


def test_second_address_is_used_when_the_first_one_gives_a_bad_archive(tmp_path):
    bad, good = Server(archive({**FILES, "en-10k/qa1_test.txt": b"wrong"})), Server(archive())
    with bad.running() as first, good.running() as second:
        fetch(tmp_path, first, second)
    assert found(tmp_path) == {f"babi/{BABI}/{name}": content for name, content in FILES.items()}
    assert bad.ranges == good.ranges == [None]


def test_leftover_of_another_archive_is_thrown_away(tmp_path):
    """Its bytes go on with those of the server, which makes nonsense; the next call starts anew."""
    part = tmp_path / "babi" / BABI / f"{BABI}.tar.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    with Server(archive()).running() as url:
        with pytest.raises(ConnectionError, match="the archive is damaged"):
            fetch(tmp_path, url)
        assert not part.exists()
        fetch(tmp_path, url)
    assert babi_status(tmp_path, manifest=MANIFEST).complete


def test_failure_names_every_address_and_what_to_do(tmp_path):
    with Server(b"").running() as url:
        pass
    with pytest.raises(ConnectionError) as error:
        fetch(tmp_path, url, url.replace(BABI, "mirror"))
    assert url in str(error.value)
    assert "mirror.tar.gz" in str(error.value)
    assert f"elsewhere belongs in {tmp_path / 'babi' / BABI}" in str(error.value)


def test_place_that_cannot_be_written_is_refused_before_any_download(tmp_path):
    (tmp_path / "file").write_text("")
    server = Server(archive())
    with (
        server.running() as url,
        pytest.raises(PermissionError, match=r"data_dir must be writable, got .*file"),
    ):
        fetch(tmp_path / "file", url)
    assert server.ranges == []


def test_data_is_looked_for_in_the_argument_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHDNC_DATA", str(tmp_path / "named"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_root(tmp_path / "given") == tmp_path / "given"
    assert data_root() == tmp_path / "named"
    monkeypatch.delenv("TORCHDNC_DATA")
    assert data_root() == tmp_path / "cache" / "torchdnc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data_root() == tmp_path / "home" / ".cache" / "torchdnc"


@pytest.mark.parametrize("given", [".", "babi", f"babi/{BABI}"])
def test_folder_is_found_from_above_and_from_within(tmp_path, given):
    folder = tmp_path / "babi" / BABI
    (folder / "en").mkdir(parents=True)
    (folder / "en" / "qa1_train.txt").write_text("")
    assert babi_folder(tmp_path / given) == folder


def test_manifest_names_the_100_official_files():
    names = list(babi_manifest())
    assert len(names) == 100
    for folder, split, count in (
        ("en", "train", 20),
        ("en", "test", 20),
        ("en-10k", "train", 20),
        ("en-10k", "test", 20),
        ("en-valid-10k", "valid", 20),
    ):
        assert sum(n.startswith(f"{folder}/qa") and n.endswith(f"_{split}.txt") for n in names) == count
    sha = babi_manifest()["en-10k/qa3_three-supporting-facts_train.txt"]
    assert sha == "9b2b35ca4357ea8ee44692c71ec71892edf51399"
