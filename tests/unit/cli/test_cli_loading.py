"""`--app module:attr` and which settings file counts: what is wrong is one line that says what and where."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastagi import App
from fastagi.app.loading import load_app
from fastagi.cli.configuration import settings_for
from fastagi.errors import ConfigError
from fastagi.settings import discover


@pytest.fixture(autouse=True)
def _own_modules() -> Iterator[None]:
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("shop"):
            del sys.modules[name]


def _module(folder: Path, text: str, name: str = "shop_app") -> None:
    (folder / f"{name}.py").write_text(text)


def test_app_comes_from_name_or_factory(tmp_path: Path) -> None:
    _module(tmp_path, "from fastagi import App\nmine = App()\nclass box: app = mine\ndef make(): return mine\n")
    found = load_app("shop_app:mine", tmp_path)
    assert isinstance(found, App)
    assert load_app("shop_app:make", tmp_path) is found
    assert load_app("shop_app:box.app", tmp_path) is found


def test_app_in_a_package(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    _module(tmp_path / "shop", "from fastagi import App\napp = App()\n", "calls")
    assert isinstance(load_app("shop.calls:app", tmp_path), App)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("shop_app", "", "write MODULE:ATTR, such as survey:app"),
        ("shop_app:", "", "write MODULE:ATTR"),
        ("shop_app.py:app", "", "name the module, not its file: shop_app:app"),
        ("./shop_app:app", "", "write MODULE:ATTR"),
        ("shop_nowhere:app", "", "there is no module 'shop_nowhere' in"),
        ("shop_app.sub:app", "", "no module 'shop_app.sub'"),
        (
            "shop_app:app",
            "import shop_missing",
            "shop_app.py, line 1: ModuleNotFoundError: No module named 'shop_missing'",
        ),
        ("shop_app:app", "x = 1\ny = 1 / 0", "shop_app.py, line 2: ZeroDivisionError: division by zero"),
        ("shop_app:app", "def (", "shop_app.py, line 1: SyntaxError"),
        ("shop_app:app", "from fastagi import App\nother = App()", "has no 'app'; it has the App other"),
        ("shop_app:app", "app = 3", "is a int, not a fastagi.App"),
        ("shop_app:app", "from fastagi import App\napp = App", "is a type, not a fastagi.App"),
        ("shop_app:make", "def make(): raise KeyError('k')", "shop_app.py, line 1: KeyError: 'k'"),
        (
            "shop_app:app",
            "from fastagi import App\napp = App()\n@app.route('a')\ndef f(c): ...\n@app.route('a')\ndef g(c): ...",
            "line 5: ConfigError: route 'a' has a handler already",
        ),
        (
            "shop_app:app",
            "from fastagi import App\napp = App()\n@app.route\nasync def survey(c): ...",
            "line 3: ConfigError: a route needs its path: @app.route('survey')",
        ),
        (
            "shop_app:app",
            "from fastagi import App\napp = App()\n@app.default\nasync def survey(c): ...",
            "line 3: ConfigError: write @app.default(), with parentheses",
        ),
    ],
)
def test_fault_is_one_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    _module(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_app(name, tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "--app" in str(caught.value)


def test_settings_file_is_discovered(tmp_path: Path) -> None:
    there, default = tmp_path / "a.toml", tmp_path / "etc.toml"
    assert discover({}, default) is None
    default.write_text("")
    assert discover({}, default) == default
    assert discover({"FASTAGI_CONFIG": str(there)}, default) == there, "named and missing is a fault, not a default"


def test_missing_settings_file_names_the_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a settings file the error says where one is looked for."""
    monkeypatch.delenv("FASTAGI_CONFIG")
    monkeypatch.setattr("fastagi.settings.discover", lambda: None)
    assert settings_for(None).agi.port == 4573
    said = " ".join(capsys.readouterr().err.split())
    assert "no settings file (--config, $FASTAGI_CONFIG, /etc/fastagi/fastagi.toml)" in said
