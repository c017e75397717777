"""Which files the guest's C programs are made of."""

from __future__ import annotations

from pathlib import Path

from builder.helpers import sources

HELPERS = Path(__file__).parent.parent / "iso" / "helpers"


def names(folder: Path) -> dict[str, list[str]]:
    return {name: [path.name for path in files] for name, files in sources(folder).items()}


def test_parts_belong_to_their_program_and_libraries_to_all(tmp_path: Path) -> None:
    for name in ("one.c", "one_part.c", "onemore.c", "lib.c", "lib_more.c", "lib.h", "one.h"):
        (tmp_path / name).touch()
    libraries = ["lib.c", "lib_more.c"]
    assert names(tmp_path) == {"one": ["one.c", "one_part.c", *libraries], "onemore": ["onemore.c", *libraries]}


def test_every_file_is_part_of_a_program() -> None:
    used = {name for files in names(HELPERS).values() for name in files}
    assert used == {path.name for path in HELPERS.glob("*.c")}


def test_nothing_is_made_of_nothing(tmp_path: Path) -> None:
    assert names(tmp_path / "missing") == {}
