from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from fastagi.errors import AsteriskError
from fastagi.testing import configuration, packages, ports


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache and an empty PATH."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("FASTAGI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(packages, "SYSTEM_PATH", str(tmp_path / "bin"))
    return tmp_path


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_missing_mmdebstrap_is_named(nothing_installed: Path) -> None:
    with pytest.raises(AsteriskError, match=r"^mmdebstrap is needed.*apt-get install mmdebstrap") as caught:
        packages.find_asterisk(22)
    assert "\n" not in str(caught.value)


def test_unknown_version_names_known_ones(nothing_installed: Path) -> None:
    with pytest.raises(AsteriskError, match=r"Asterisk 17 .* use one of 16, 22"):
        packages.find_asterisk(17)


def test_failed_fetch_leaves_nothing(nothing_installed: Path) -> None:
    """The error gives the reason."""
    program(nothing_installed / "bin" / "mmdebstrap", "echo 'I: hello' >&2; echo 'E: no such suite' >&2; exit 1")
    with pytest.raises(AsteriskError, match="could not be fetched from Debian forky: E: no such suite"):
        packages.find_asterisk(22)
    assert [p.name for p in (nothing_installed / "cache").iterdir()] == ["asterisk-22.lock"]


def test_incomplete_asterisk_is_not_cached(nothing_installed: Path) -> None:
    program(nothing_installed / "bin" / "mmdebstrap", "exit 0")
    with pytest.raises(AsteriskError, match="holds no whole Asterisk"):
        packages.find_asterisk(22)
    assert not (nothing_installed / "cache" / "asterisk-22").exists()


def test_concurrent_callers_fetch_once(nothing_installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def fetch(tree: Path, what: str, suite: str, *_: object) -> None:
        fetched.append(suite)
        tree.mkdir()

    found = packages.Installation(("true",), "22.0.0", Path("/"), Path("/"))
    monkeypatch.setattr(packages, "_fetch", fetch)
    monkeypatch.setattr(packages, "_unpacked", lambda tree: found)
    both = [threading.Thread(target=packages.find_asterisk, args=(22,)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert fetched == ["forky"]


def test_asterisk_on_path_is_preferred(nothing_installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(nothing_installed / "bin" / "asterisk", "echo 'Asterisk 22.4.1~dfsg'")
    places = iter([Path("/lib/app_mixmonitor.so"), Path("/share/sounds/en")])
    monkeypatch.setattr(packages, "_first", lambda folders, patterns: next(places))
    found = packages.find_asterisk(22)
    assert (found.version, found.major, found.data) == ("22.4.1", 22, Path("/share"))
    with pytest.raises(AsteriskError, match="mmdebstrap is needed"):
        packages.find_asterisk(16)


def test_taken_ports_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free ports can be bound."""
    port = ports.free_port()
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        draws = iter([port, port, port + 1 if port + 1 < ports.HIGHEST else port - 1])

        class Draws:
            def randrange(self, *args: int) -> int:
                return next(draws)

        monkeypatch.setattr(ports, "_random", Draws())
        assert ports.free_port() != port


def test_the_configuration_leaves_no_placeholder(tmp_path: Path) -> None:
    (tmp_path / "data" / "sounds" / "en_US_f_Allison").mkdir(parents=True)
    (tmp_path / "data" / "moh").mkdir()
    (tmp_path / "folder").mkdir()
    extra = tmp_path / "features.conf"
    extra.write_text("[applicationmap]\nx => *9,self,NoOp\n")
    plan = configuration.Plan(
        folder=tmp_path / "folder",
        run=tmp_path,
        installation=packages.Installation(("asterisk",), "22.1.0", tmp_path / "modules", tmp_path / "data"),
        ami_port=5038,
        ami_user="fastagi",
        ami_secret="s3cret",
        agi_port=4573,
        sip_port=5060,
        sipp_port=5061,
        agents={"agent1": 5070},
        dialplan=["[mine]\nexten => s,1,NoOp(${EXTEN}@x)\n", extra],
        extra_files={"custom/features.conf": extra},
    )
    configuration.write(plan)
    etc = tmp_path / "folder" / "etc"
    for path in etc.glob("*.conf"):
        assert not any(word in path.read_text() for word in ("@FOLDER@", "@AMI", "@AGI", "@SIP", "@RUN", "@DIALPLAN@"))
    text = (etc / "extensions.conf").read_text()
    assert "NoOp(${EXTEN}@x)" in text
    assert f'#include "{extra}"' in text
    assert "sip:agent1@127.0.0.1:5070" in (etc / "pjsip.conf").read_text()
    assert (etc / "custom" / "features.conf").read_text() == extra.read_text()
    assert os.readlink(tmp_path / "folder" / "data" / "sounds" / "en").endswith("en_US_f_Allison")
    configuration.write(plan)  # once more changes nothing and fails at nothing
