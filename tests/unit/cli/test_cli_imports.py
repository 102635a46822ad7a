"""What a command imports: only what it works with. By sys.modules, not by time, which differs between machines."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import fastagi
from fastagi.cli import cli

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]

HEAVY = {
    "aiohttp",
    "alembic",
    "cryptography",
    "numpy",
    "obstore",
    "panoramisk",
    "prometheus_client",
    "soundfile",
    "soxr",
}
LEDGER = {"sqlalchemy"}

LIGHT_PACKAGES = sorted(
    str(file.parent.relative_to(ROOT)).replace("/", ".")
    for file in (ROOT / "fastagi").rglob("__init__.py")
    if "= exports(" in file.read_text()
)


def _after(code: str, *commands: tuple[str, ...]) -> dict[str, set[str]]:
    """The top names of what is imported after `code`, or after each of these commands, in one process of its own."""
    told = (
        f"import json, sys\n{code}\n"
        "found = {}\n"
        "def note(what):\n"
        "    found[what] = sorted({name.partition('.')[0] for name in sys.modules})\n"
        "note('')\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    sys.argv[1:] = command\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as exc:\n"
        "        note(' '.join(command[:2]) + f': {exc.code or 0}')\n"
        "print('\\n' + json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", told, json.dumps(commands)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {what: set(names) for what, names in json.loads(done.stdout.splitlines()[-1]).items()}


def test_help_and_version_import_nothing_heavy() -> None:
    """Help and version wait for no package that a command works with."""
    commands: list[tuple[str, ...]] = [("--version",), ("--help",)]
    root = get_command(cli)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        commands.append((name, "--help"))
        commands += [(name, below, "--help") for below in getattr(command, "commands", {})]
    assert len(commands) > 20
    found = _after("from fastagi.cli import main", *commands)
    assert {what: imported & {*HEAVY, *LEDGER} for what, imported in found.items()} == {what: set() for what in found}
    assert all(what.endswith(": 0") for what in found if what)


def test_ledger_commands_import_only_the_ledger(desk) -> None:
    one = desk.recording().id
    commands = (
        ("recordings", "list"),
        ("recordings", "show", one),
        ("recordings", "verify"),
        ("recordings", "hold", one, "--reason", "x"),
        ("deliveries", "list"),
        ("deliveries", "retry", "--dead"),
        ("calls", "check"),
    )
    found = _after("from fastagi.cli import main", *((*words, "--config", str(desk.config)) for words in commands))
    assert set(found) == {"", *(f"{words[0]} {words[1]}: 0" for words in commands)}
    assert {what: imported & HEAVY for what, imported in found.items()} == {what: set() for what in found}
    assert found["calls check: 0"] >= LEDGER


def test_importing_the_package_imports_no_submodule() -> None:
    """Importing `fastagi` imports none of its packages."""
    imported = _after("import fastagi")[""]
    assert imported & {*HEAVY, *LEDGER, "pydantic", "structlog", "typer"} == set()
    imported = _after("from fastagi import App")[""]
    assert imported >= {"aiohttp", "numpy", "sqlalchemy"}, "and the names that this test looks for are right"


def _imports(statements: list[ast.stmt]) -> dict[str, list[str]]:
    return {s.module: [a.name for a in s.names] for s in statements if isinstance(s, ast.ImportFrom) and s.module}


@pytest.mark.parametrize("package", LIGHT_PACKAGES)
def test_typed_exports_match_runtime_exports(package: str) -> None:
    """The names that type checkers see exist at run time."""
    module = importlib.import_module(package)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    (branch,) = [node for node in tree.body if isinstance(node, ast.If)]
    (assigned,) = [node for node in branch.orelse if isinstance(node, ast.Assign)]
    assert isinstance(assigned.value, ast.Call)
    sources = ast.literal_eval(assigned.value.args[2])
    assert sources == _imports(branch.body)
    assert sorted(name for names in sources.values() for name in names) == sorted(module.__all__)
    assert not set(module.__all__) & {m.name for m in pkgutil.iter_modules(module.__path__)}, "see fastagi.exports"
    code = (
        f"import {package} as p; listed = set(dir(p)); everything = {{}}; exec('from {package} import *', everything); "
        "assert set(p.__all__) <= listed & set(everything); "
        "assert all(everything[name] is getattr(p, name) for name in p.__all__); "
        "assert not hasattr(p, 'nothing') and not hasattr(p, '__wrapped__')"
    )
    _after(code)


def test_packages_are_attributes_without_import() -> None:
    """Packages are found as attributes without an import of their own."""
    _after("import fastagi; assert fastagi.errors.Hangup is fastagi.Hangup and fastagi.recording.call.CallChannel")
    for name in ("settings", "store", "delivery", "web", "ami", "audio", "handlers"):
        _after(f"import fastagi; assert fastagi.{name}.__name__ == 'fastagi.{name}'")
    _after("import fastagi.app.logs, fastagi.app.app; from fastagi.app import App; assert App is fastagi.App")


def test_unknown_name_is_named_in_error() -> None:
    """A name that there is not is an error that names it."""
    with pytest.raises(AttributeError, match="module 'fastagi' has no attribute 'Recorder'") as raised:
        fastagi.Recorder  # noqa: B018
    assert raised.value.name == "Recorder"
    with pytest.raises(ImportError, match="Recorder"):
        exec("from fastagi import Recorder")


def test_type_checker_knows_exactly_the_exports(tmp_path: Path) -> None:
    """A user's type checker knows every exported name and no other."""
    shown = "\n".join(f"reveal_type(fastagi.{name})" for name in fastagi.__all__)
    file = tmp_path / "users.py"
    file.write_text(f"import fastagi\nfrom fastagi import App, Recorder\n{shown}\n")
    options = ("--strict", "--config-file=", f"--cache-dir={tmp_path}/cache", "--follow-imports=silent")
    command = [sys.executable, "-m", "mypy", *options, str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    lines = done.stdout.splitlines()
    assert [line for line in lines if " error: " in line] == [
        f'{file}:2: error: Module "fastagi" has no attribute "Recorder"  [attr-defined]'
    ]
    revealed = [line.split('"')[1] for line in lines if "Revealed type" in line]
    assert len(revealed) == len(fastagi.__all__)
    assert "Any" not in revealed
