"""Models by address: ``https://...``, ``hf://org/name[@revision][/file]``, and ``-`` for what comes through stdin.

What an address names lies in the user's cache afterwards: of hf:// in huggingface_hub's own (``HF_HOME``), of https://
in tlkit's, asked for again only where the server says that it has changed. Nothing fetched is executed; its format is
told from its content like any other file's. What only fetching needs is imported late: who names a path does not pay.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tlkit.errors import LoadError, UnavailableError, UsageError, reason

Progress = Callable[[float, float | None], None]
"""Told how many bytes have come and, where that is known, of how many."""
OFFLINE = "TLKIT_OFFLINE"
"""The variable that forbids asking the network, as huggingface_hub's own ``HF_HUB_OFFLINE`` does."""

_WAIT = 30.0  # seconds without a byte after which a server is given up
_PART = 1 << 20
_PIPED = "tlkit-stdin-"
_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack", ".ot", ".pickle", ".ckpt")
_HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+?))?(?:/(?P<file>.+))?")


def is_address(text: str) -> bool:
    """Whether ``text`` names what is not a path here: ``-``, ``http://``, ``https://`` or ``hf://``."""
    return text == "-" or text.startswith(("http://", "https://", "hf://"))


def local(text: str | os.PathLike[str], progress: Progress = lambda *_: None) -> Path:
    """Return the path of what ``text`` names, which is fetched first where it is an address.

    Raises LoadError where it cannot be had (no network, 404, a gated model), UnavailableError where hf:// is asked for
    and huggingface_hub is not installed.
    """
    if not isinstance(text, str) or not is_address(text):
        return Path(text)
    if text == "-":
        return _from_stdin()
    return _from_hub(text) if text.startswith("hf://") else _from_server(text, progress)


def came_through_stdin(path: str | os.PathLike[str]) -> bool:
    """Whether a path is what :func:`local` made of ``-``: nothing else can be read from stdin then."""
    return Path(path).parent.name.startswith(_PIPED)


def offline() -> bool:
    """Whether the network may not be asked."""
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in (OFFLINE, "HF_HUB_OFFLINE"))


def _from_stdin() -> Path:
    if sys.stdin.isatty():
        raise UsageError("-: stdin is the terminal", "pipe a file into tlkit, or name it")
    import shutil

    from tlkit.host.scratch import scratch_folder

    path = scratch_folder(_PIPED, _from_stdin) / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, _PART)
    return path


def _from_server(address: str, progress: Progress) -> Path:
    import hashlib
    from http.client import HTTPException

    from tlkit.host.machine import cache_folder

    folder = cache_folder() / "fetched" / hashlib.sha256(address.encode()).hexdigest()[:40]
    name = re.sub(r"[^\w.-]", "_", re.split(r"[?#]", address)[0].rstrip("/").rpartition("/")[2]).lstrip(".") or "model"
    kept, about = folder / name, folder / "about.json"
    if offline():
        if kept.is_file():
            return kept
        raise LoadError(f"{address}: not fetched before, and the network may not be asked", "leave --offline out once")
    try:
        _download(address, kept, about, progress)
    except (OSError, ValueError, HTTPException) as error:
        raise _unreached(address, error, kept.is_file()) from None
    return kept


def _download(address: str, kept: Path, about: Path, progress: Progress) -> None:
    import tempfile
    import urllib.error
    import urllib.parse
    import urllib.request

    spelled = urllib.parse.quote(address, safe="%/:?#[]@!$&'()*+,;=~")  # what is not ASCII, blanks and line ends

    headers = {"User-Agent": "tlkit"}
    if kept.is_file():
        with suppress(OSError, ValueError):
            headers |= {"If-None-Match": str(json.loads(about.read_text())["etag"])}
    try:
        with urllib.request.urlopen(urllib.request.Request(spelled, headers=headers), timeout=_WAIT) as answer:
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, part = tempfile.mkstemp(prefix=".new-", dir=kept.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    _copy(answer, file, progress)
                os.replace(part, kept)
            except BaseException:
                os.unlink(part)
                raise
            about.unlink(missing_ok=True)
            if etag := answer.headers.get("ETag"):
                about.write_text(json.dumps({"address": address, "etag": etag}))
    except urllib.error.HTTPError as error:
        if error.code != 304:  # not modified
            raise


def _copy(answer: Any, file: IO[bytes], progress: Progress) -> None:
    """Copy a server's answer; OSError where it ends before it is whole."""
    said = answer.headers.get("Content-Length", "")
    total, come = int(said) if said.isdecimal() else None, 0
    while part := answer.read(_PART):
        file.write(part)
        come += len(part)
        progress(come, total)
    if total is not None and come < total:
        raise OSError(f"it ended after {come} of {total} bytes")


def _unreached(address: str, error: Exception, kept: bool) -> LoadError:
    code = getattr(error, "code", None)
    if code is not None:
        hints = {401: "fetch it with its owner's own tool", 403: "fetch it with its owner's own tool"}
        hint = hints.get(code, "look whether the address is right")
        return LoadError(f"{address}: the server answers {code} ({getattr(error, 'reason', '')})", hint)
    inner = getattr(error, "reason", None)
    said = reason(inner if isinstance(inner, BaseException) else error)
    hint = "take what was fetched before: --offline" if kept else "look whether there is a network, or name a file"
    return LoadError(f"{address}: it cannot be fetched: {said}", hint)


def _from_hub(address: str) -> Path:
    named = _HUB.fullmatch(address)
    if named is None or ".." in (named["file"] or "").split("/"):
        raise UsageError(f"{address}: not an address on the hub", "write it as hf://org/name or hf://org/name/file")
    for name, value in (("HF_HUB_DISABLE_PROGRESS_BARS", "1"), ("HF_HUB_VERBOSITY", "error")):
        os.environ.setdefault(name, value)  # stderr is the sink's; the hub's package reads them when it is imported
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError:
        raise UnavailableError(f"{address}: huggingface_hub is not installed", "pip install 'tlkit[hf]'") from None
    repo, revision, wanted = named["repo"], named["revision"], (named["file"] or "").rstrip("/")
    if offline():
        return _kept_of_hub(hub, repo, revision, wanted, address)
    try:
        patterns = _chosen(hub.HfApi().list_repo_files(repo, revision=revision), wanted, address)
        folder = hub.snapshot_download(repo, revision=revision, allow_patterns=patterns)
    except LoadError:
        raise
    except errors.GatedRepoError:
        raise LoadError(f"{address}: its owner asks for terms to be accepted", _TERMS) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise LoadError(f"{address}: no such model or revision there, or a private one", _TERMS) from None
    except Exception as error:  # of httpx or requests, by the release of huggingface_hub
        raise LoadError(f"{address}: it cannot be fetched: {reason(error)}", _NO_NETWORK) from None
    return Path(folder, wanted) if wanted else Path(folder)


def _kept_of_hub(hub: Any, repo: str, revision: str | None, wanted: str, address: str) -> Path:
    """Return what lies in the hub's cache; of a whole model, what was fetched of it."""
    with suppress(hub.errors.CacheNotFound):
        for held in hub.scan_cache_dir().repos:
            for snapshot in held.revisions if (held.repo_type, held.repo_id) == ("model", repo) else ():
                path = Path(snapshot.snapshot_path, wanted) if wanted else Path(snapshot.snapshot_path)
                if (revision or "main") in {snapshot.commit_hash, *snapshot.refs} and path.exists():
                    return path
    raise LoadError(f"{address}: not fetched before, and the network may not be asked", _ONCE)


_TERMS = "accept them or ask for access on the model's page, then `hf auth login`"
_ONCE = "leave --offline out once"
_NO_NETWORK = "look whether there is a network; what was fetched before: --offline"


def _chosen(files: Sequence[str], wanted: str, address: str) -> list[str]:
    """Return which of a repository's files to fetch: the one, or folder, that is ``wanted``, or a whole model.

    Of a whole one, weights in one format only: SafeTensors where there are any. LoadError where nothing is named so.
    """
    if wanted:
        found = [file for file in files if file == wanted or file.startswith(f"{wanted}/")]
        if not found:
            models = [file for file in files if file.endswith(_WEIGHTS)] or list(files)
            raise LoadError(f"{address}: no such file there", f"there are {', '.join(models[:8])}")
        return found
    ends = next((end for end in _WEIGHTS if any(file.endswith(end) for file in files)), "")
    top = [file for file in files if "/" not in file]  # folders hold the same in other formats
    return [file for file in top if file.endswith(ends) or not file.endswith(_WEIGHTS)]
