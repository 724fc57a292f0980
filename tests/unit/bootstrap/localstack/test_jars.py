"""The Kafka jars: a lock that is complete, and a checksum that is believed more than a file or a download."""

import hashlib
from pathlib import Path

import pytest
from requests.exceptions import ConnectionError

from bootstrap.localstack import jars
from tasks.errors import LocalStackError


def test_the_lock_names_a_version_and_a_checksum_for_each_jar() -> None:
    locked = list(jars.read_lock(jars.LOCK))
    assert any(jar.file_name == "kafka_2.13-4.4.0.jar" for jar in locked)
    assert len({jar.file_name for jar in locked}) == len(locked)
    assert all(len(bytes.fromhex(jar.sha256)) == 32 for jar in locked)


def lock(directory: Path, content: bytes, coordinates: str = "org.example:thing:1.0") -> Path:
    file = directory / "lock"
    file.write_text(f"{coordinates} sha256:{hashlib.sha256(content).hexdigest()}\n")
    return file


def test_a_complete_directory_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("bootstrap.localstack.jars.Downloader", no_network)
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "thing-1.0.jar").write_bytes(b"right")
    assert jars.ensure(tmp_path / "jars", lock(tmp_path, b"right")) == tmp_path / "jars"
    with pytest.raises(AssertionError, match="fetched"):
        jars.ensure(tmp_path / "jars", lock(tmp_path, b"changed"))


class _Answer:
    content = b"wrong"


def test_a_download_with_a_wrong_checksum_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maven_artifact.requestor.Requestor.request", lambda *_, **__: _Answer())
    with pytest.raises(LocalStackError, match=r"thing-1\.0\.jar has a wrong checksum"):
        jars.ensure(tmp_path / "jars", lock(tmp_path, b"right"))
    assert list((tmp_path / "jars").iterdir()) == []


def test_a_failed_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr("maven_artifact.requestor.Requestor.request", fail)
    with pytest.raises(LocalStackError, match=r"could not fetch thing-1\.0\.jar") as caught:
        jars.ensure(tmp_path / "jars", lock(tmp_path, b"right"))
    assert len(str(caught.value).splitlines()) == 1
