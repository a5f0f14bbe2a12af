"""Files and folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_ray.system import atomic


def test_a_file_is_replaced_in_one_step_and_stays_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "new" / "selection.json"
    atomic.write_text(path, "first")
    with pytest.raises(RuntimeError, match="in the middle"), atomic.whole_file(path) as temporary:
        temporary.write_text("sec")
        assert path.read_text() == "first" and temporary.parent == path.parent and temporary.name.startswith(".")
        raise RuntimeError("in the middle")
    assert path.read_text() == "first"
    atomic.write_text(path, "second")
    assert path.read_text() == "second" and [child.name for child in path.parent.iterdir()] == ["selection.json"]


def test_a_body_that_writes_nothing_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic.whole_file(tmp_path / "a"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("replace", [False, True])
def test_of_two_that_build_a_folder_one_stays_whole(tmp_path: Path, replace: bool) -> None:
    folder = tmp_path / "cache" / "base"
    with atomic.whole_folder(folder, replace=replace) as slower:
        (slower / "weights").write_text("slower")
        with atomic.whole_folder(folder) as faster:
            (faster / "weights").write_text("faster")
    assert (folder / "weights").read_text() == ("slower" if replace else "faster")
    assert [child.name for child in folder.parent.iterdir()] == ["base"]


def test_a_folder_whose_building_fails_does_not_appear(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    with pytest.raises(RuntimeError), atomic.whole_folder(folder) as building:
        (building / "weights").write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_folder_takes_the_place_of_another_in_one_step(tmp_path: Path) -> None:
    new, old = tmp_path / "waiting" / "a", tmp_path / "models" / "b"
    for folder in (new, old):
        folder.mkdir(parents=True)
        (folder / folder.name).touch()
    atomic.move_folder(new, old)
    assert [path.name for path in old.iterdir()] == ["a"] and [path.name for path in old.parent.iterdir()] == ["b"] and not new.exists()
    atomic.discard(old)
    assert not list(old.parent.iterdir())


def test_leftovers_of_killed_processes_are_swept_up(tmp_path: Path) -> None:
    kept = tmp_path / "jepa" / "seed-1" / "weights"
    for path in (kept, tmp_path / "jepa" / ".seed-2.0badcafe.tmp" / "half", tmp_path / ".README.md.0badcafe.tmp"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    atomic.sweep_up(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept] and len(list(tmp_path.rglob("*"))) == 3
    atomic.sweep_up(tmp_path / "missing")
