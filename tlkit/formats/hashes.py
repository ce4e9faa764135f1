"""Fingerprints of files, and of the weights in them independent of file layout and order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tlkit.errors import LoadError, reason
from tlkit.formats.base.tensors import TensorFile

_PIECE = 1 << 20


def files_of(path: Path) -> list[Path]:
    """Return the file ``path`` or the files in that folder, sorted; links count as their targets."""
    if not path.is_dir():
        return [path]
    return sorted(item for item in path.rglob("*") if item.is_file())


def file_hashes(paths: Iterable[Path], advance: Callable[[int], None] = lambda nbytes: None) -> dict[str, str]:
    """Return the SHA-256 of each file, as git-lfs and Hugging Face give it."""
    import hashlib  # loads OpenSSL, which `inspect` does without

    found = {}
    for path in paths:
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
                    advance(len(piece))
        except OSError as error:
            raise LoadError(f"{path}: {reason(error)}", "check the path") from None
        found[str(path)] = digest.hexdigest()
    return found


def weights_hash(source: TensorFile, advance: Callable[[int], None] = lambda nbytes: None) -> str:
    """Return one SHA-256 of all tensors: name, type, shape and stored bytes of each, in the names' order.

    Two files of one format have the same one if they hold the same weights, however they are laid out or split.
    """
    import hashlib  # loads OpenSSL, which `inspect` does without

    whole = hashlib.sha256()
    for entry in sorted(source.entries(), key=lambda entry: entry.name):
        if entry.offset is None or entry.strides or entry.big_endian:
            raw = memoryview(source.array(entry).tobytes())
        else:
            raw = source.raw(entry)
        digest = hashlib.sha256()
        for start in range(0, len(raw), _PIECE):
            digest.update(raw[start : start + _PIECE])
            advance(min(_PIECE, len(raw) - start))
        source.release(entry, entry.nbytes)
        line = f"{entry.name}\0{entry.dtype}\0{','.join(map(str, entry.shape))}\0{digest.hexdigest()}\n"
        whole.update(line.encode("utf-8", "surrogatepass"))
    return whole.hexdigest()
