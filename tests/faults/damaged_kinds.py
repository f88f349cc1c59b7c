"""Ways to damage a file. Each takes the random generator, the file and files of the same kind."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

Damage = Callable[[Random, bytes, Sequence[bytes]], bytes]

_NUMBER = re.compile(rb"-?\b\d+(?:\.\d+)?(?:[eE][-+]?\d+)?\b")
_NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b".nan", b".inf", b"1e400", b"9" * 400, b"-7", b"0")
_TYPES = (b'"text"', b"[]", b"{}", b"null", b"true", b'[1, "a"]', b"'", b"!!python/none ''")
_DEPTH = 100_000


def _truncate(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data))]


def _flip_bit(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _flip_bytes(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(2, 8)):
        changed[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(changed)


def _flip_early(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(min(32, len(data)))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _zero_block(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data))
    length = rng.randint(1, max(1, min(512, len(data) - start)))
    return data[:start] + bytes(length) + data[start + length :]


def _empty(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return b""


def _random(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return rng.randbytes(len(data))


def _append(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data + rng.randbytes(rng.randint(1, 300))


def _other(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return rng.choice(list(others))


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def _delete_line(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    lines = _lines(data)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


def _double_line(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    lines = _lines(data)
    place = rng.randrange(len(lines))
    return b"".join([*lines[: place + 1], lines[place], *lines[place + 1 :]])


def _replace_number(rng: Random, data: bytes, by: Sequence[bytes]) -> bytes:
    found = list(_NUMBER.finditer(data))
    if not found:
        return data + rng.choice(by)
    place = rng.choice(found)
    return data[: place.start()] + rng.choice(by) + data[place.end() :]


def _odd_number(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return _replace_number(rng, data, _NUMBERS)


def _wrong_type(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return _replace_number(rng, data, _TYPES)


def _deep(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    depth = _DEPTH if rng.random() < 0.5 else 500
    return _replace_number(rng, data, [b"[" * depth + b"]" * depth, b'{"a":' * depth])


def _no_text(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + b"\xff\xfe\x00" + data[place:]


def _laughs(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    lines = ["laugh0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"laugh{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    return data + "\n".join(["", *lines, ""]).encode()


def _endless(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data + b"\nendless: &e [*e]\n"


def _code(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    payload = rng.choice(
        (
            b'!!python/object/apply:os.system ["touch PAYLOAD"]',
            b"!!python/object/new:os.system [touch PAYLOAD]",
            b"!!python/name:os.system",
            b"!!python/module:this",
        )
    )
    return data + b"\npayload: " + payload + b"\n"


def _reference(number: int) -> str:
    return f"&a{number};"


def _entities(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    entities = ['<!ENTITY a0 "ha">'] + [
        f'<!ENTITY a{n} "{_reference(n - 1) * 10}">' for n in range(1, 12)
    ]
    head = f"<!DOCTYPE x [{''.join(entities)}]>".encode()
    return head + data.replace(b"dog", b"&a11;")


BINARY: dict[str, Damage] = {
    "truncated": _truncate,
    "a bit flipped": _flip_bit,
    "bytes flipped": _flip_bytes,
    "header flipped": _flip_early,
    "a block of zeros": _zero_block,
    "empty": _empty,
    "random bytes": _random,
    "garbage appended": _append,
}
OTHER: dict[str, Damage] = {"another of its kind": _other}
TEXT: dict[str, Damage] = {
    **BINARY,
    "a line deleted": _delete_line,
    "a line doubled": _double_line,
    "NaN, infinite or huge": _odd_number,
    "a wrong type": _wrong_type,
    "deeply nested": _deep,
    "no text": _no_text,
}
YAML: dict[str, Damage] = {
    **TEXT,
    "aliases that grow": _laughs,
    "an alias of itself": _endless,
    "a tag that runs code": _code,
}
XML: dict[str, Damage] = {**TEXT, "entities that grow": _entities}
DIRECTORY = "a folder in its place"


def damage(
    rng: Random, kind: str, kinds: dict[str, Damage], path: Path, others: Sequence[Path]
) -> None:
    """Damage a file, which is replaced: its hard links stay as they were."""
    data = path.read_bytes()
    path.unlink()
    if kind == DIRECTORY:
        path.mkdir()
        (path / "something").write_bytes(data[:100])
        return
    changed = data
    for _ in range(20):  # a random byte may be the one that was there
        changed = kinds[kind](rng, data, [other.read_bytes() for other in others])
        if changed != data:
            break
    path.write_bytes(changed)


def copy_world(source: Path, target: Path) -> None:
    """Make a world of hard links, in which files are only ever replaced."""
    import os

    shutil.copytree(source, target, copy_function=os.link)
