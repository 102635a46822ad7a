"""The order of the tests and their second runs name files that there are."""

from __future__ import annotations

from support.run_order import FOLDERS, LONGEST, SECOND_RUN, TESTS, may_run_twice, rank


def test_each_named_file_exists() -> None:
    """A file that was renamed must not lose its place unnoticed."""
    assert [name for name in LONGEST if not (TESTS / name).is_file()] == []
    assert [pattern for pattern in SECOND_RUN if not list(TESTS.glob(pattern))] == []


def test_each_folder_has_its_place() -> None:
    there = {path.parent.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")}
    assert there == set(FOLDERS)


def test_no_second_run_without_reason() -> None:
    """Unit tests touch nothing but their process; most tests on real things are not run again either."""
    files = sorted(TESTS.rglob("test_*.py"))
    again = [file for file in files if may_run_twice(file)]
    assert not [file for file in again if file.is_relative_to(TESTS / "unit")]
    assert len(again) < len([file for file in files if not file.is_relative_to(TESTS / "unit")]) / 2
    assert all(reason and reason[-1] != "." for reason in SECOND_RUN.values())


def test_long_files_begin_first() -> None:
    names = ["unit/testing/test_run_order.py", "web/test_web_access.py", LONGEST[-1], LONGEST[0]]
    assert sorted(names, key=lambda name: rank(TESTS / name)) == names[::-1]
