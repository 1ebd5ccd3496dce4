"""Fetches the official weight files."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, check_plain, lock, sha256, temporary_of
from ResNeSt.common.progress import hidden
from ResNeSt.models.cards import Card

BLOCK = 1 << 20


def fetch(card: Card, folder: PathLike = ".") -> Path:
    """The official weight file of `card` in `folder`, downloaded unless it is there; checked against its hash.

    A broken download goes on where it stopped. Raises PipelineError where the file cannot be had or is not the one.
    """
    if card.url is None or card.sha256 is None:
        raise PipelineError(f"{card.name}: has no published weight file; give your own checkpoint")
    target = Path(folder) / card.url.rsplit("/", 1)[1]
    if target.exists():
        _check_hash(target, card.sha256, "move it away and run the command again")
        return target
    partial = temporary_of(target)
    check_plain(partial)
    _download(card.url, partial)
    try:
        _check_hash(partial, card.sha256, f"{card.url} sent it; removed, run the command again")
    except PipelineError:
        partial.unlink()
        raise
    return partial.replace(target)


def _download(url: str, partial: Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310 (from cards.json)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            _append(response, partial, start if response.status == http.client.PARTIAL_CONTENT else 0)
    except urllib.error.HTTPError as error:
        # 416: the part we hold is already the whole file; the hash decides.
        if not start or error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise PipelineError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise PipelineError(
            f"{url}: download stopped ({error}); run the command again to go on, or fetch the file by hand and name it "
            "with --weights"
        ) from None


def _append(response: http.client.HTTPResponse, partial: Path, start: int) -> None:
    length = response.length
    total = None if length is None else start + length
    name = Path(response.url).name
    with (
        open(partial, "r+b" if partial.exists() else "xb") as file,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name, disable=hidden()) as bar,
    ):
        lock(file.fileno(), partial)
        file.truncate(start)
        file.seek(start)
        while block := response.read(BLOCK):
            file.write(block)
            bar.update(len(block))
    if total is not None and partial.stat().st_size < total:
        raise OSError(f"{partial.stat().st_size} of {total} bytes came")


def _check_hash(path: Path, expected: str, advice: str) -> None:
    actual = sha256(path)
    if not actual.startswith(expected):
        raise PipelineError(f"{path}: SHA-256 starts with {actual[:8]}, the published file's with {expected}; {advice}")
