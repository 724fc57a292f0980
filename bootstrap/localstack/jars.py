"""Apache Kafka as the jars of a lock file: fetched once from the Maven repository, each checked by SHA-256."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from maven_artifact import Artifact, Downloader, RequestException
from requests.exceptions import RequestException as HttpError
from tqdm import tqdm

from tasks.errors import LocalStackError

LOCK = Path(__file__).with_name("kafka-4.4.0.lock")
_PARALLEL = 6
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Jar:
    """A line of the lock: Maven coordinates and the SHA-256 of the file."""

    coordinates: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The file name in the Maven repository: artifact-version.jar."""
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"


def read_lock(lock: Path) -> Iterator[Jar]:
    """The jars of a lock file, a line each: group:artifact:version sha256:hex."""
    for line in lock.read_text().splitlines():
        coordinates, _, sha256 = line.partition(" sha256:")
        yield Jar(coordinates, sha256)


def ensure(directory: Path, lock: Path = LOCK) -> Path:
    """All jars of the lock in `directory`; fetches those that are missing or have been changed.

    Raises LocalStackError if a download fails or has a wrong checksum, which is not kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    missing = [jar for jar in read_lock(lock) if _sha256(directory / jar.file_name) != jar.sha256]
    if missing:
        with (
            ThreadPoolExecutor(_PARALLEL) as pool,
            tqdm(total=len(missing), desc="fetching Apache Kafka", unit="jar", mininterval=0.5) as progress,
        ):
            waiting = [pool.submit(_fetch, jar, directory) for jar in missing]
            try:
                for done in as_completed(waiting):
                    done.result()
                    progress.update()
            except LocalStackError:
                pool.shutdown(cancel_futures=True)
                raise
    return directory


def _fetch(jar: Jar, directory: Path) -> None:
    downloader = Downloader()  # it has the address of the repository
    try:
        url = downloader.resolver.uri_for_artifact(Artifact.parse(jar.coordinates))
        response = downloader.requestor.request(url, None, timeout=_TIMEOUT_SECONDS)
        content: bytes = response.content
    except (RequestException, HttpError) as error:
        raise LocalStackError(
            f"could not fetch {jar.file_name}: {_short(error)}; check the network and run again"
        ) from None
    if hashlib.sha256(content).hexdigest() != jar.sha256:
        raise LocalStackError(f"{jar.file_name} has a wrong checksum; it was not kept")
    partial = directory / f".{jar.file_name}.{os.getpid()}"
    try:
        partial.write_bytes(content)
        partial.replace(directory / jar.file_name)
    except OSError as error:
        raise LocalStackError(f"could not keep {jar.file_name}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _sha256(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None


def _short(error: Exception) -> str:
    return (
        type(error).__name__
        if isinstance(error, HttpError)
        else str(getattr(error, "msg", error)).splitlines()[-1][:200]
    )
