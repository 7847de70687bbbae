"""Runs inside the build: cuts what only debuggers read off the shared libraries below a directory."""

import struct
import sys
from pathlib import Path

# ELF, 64 bits, little-endian: the fields that say where its segments are (program header table).
MAGIC = b"\x7fELF\2\1"


def end(elf: bytes) -> int:
    """Return where the last segment of a library ends: a loader reads nothing behind it."""
    table, size, count = struct.unpack_from("<32xQ14xHH", elf)
    segments = [struct.unpack_from("<8xQ16xQ", elf, table + size * number) for number in range(count)]
    return max(int(offset + length) for offset, length in segments)


def strip(library: Path) -> None:
    """Cut a library after its last segment, and take the table of sections, which is there, out of its header."""
    elf = library.read_bytes()
    if not elf.startswith(MAGIC) or end(elf) > struct.unpack_from("<40xQ", elf)[0]:
        return
    library.write_bytes(elf[:40] + bytes(8) + elf[48:60] + bytes(4) + elf[64 : end(elf)])


if __name__ == "__main__":
    for path in Path(sys.argv[1]).rglob("*.so*"):
        if path.is_file() and not path.is_symlink():
            strip(path)
