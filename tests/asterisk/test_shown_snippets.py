"""Dialplan and manager users that README, guide and the shipped files' comments show are loaded by real Asterisks."""

from __future__ import annotations

import re

import pytest

from fastagi.testing import AmiSession, AsteriskServer
from support.document_snippets import ROOT, Block, blocks

pytestmark = pytest.mark.asterisk


def as_context(name: str, block: Block) -> str:
    """The steps that a block shows, as a context of their own: what stands beside them is left out."""
    lines = [line.strip() for line in block.text.splitlines()]
    steps = []
    for line in lines:
        if line.startswith("AGI("):
            line = f"same => n,{line}"
        if line.startswith("same =>") and not steps:
            steps.append("exten => shown,1,NoOp()")
        if line.startswith(("exten =>", "same =>")):
            steps.append(line)
    return f"[{name}]\n" + "\n".join(steps) + "\n"


def dialplans() -> dict[str, tuple[Block, str]]:
    """Context name -> the block and its text, for every block that has a step of a dialplan."""
    found = [b for b in blocks() if re.search(r"^\s*(exten|same) =>|^\s*AGI\(", b.text, re.MULTILINE)]
    return {f"shown-{n}": (b, as_context(f"shown-{n}", b)) for n, b in enumerate(found)}


@pytest.mark.parametrize("version", [22, 16])
async def test_shown_dialplans_load(version: int) -> None:
    shown = dialplans()
    assert len(shown) >= 6
    included = "".join(f'#include "{ROOT / "dialplan" / name}"\n' for name in ("record.conf", "queue.conf"))
    async with AsteriskServer(version, dialplan=included + "".join(text for _, text in shown.values())) as pbx:
        for name, (block, text) in shown.items():
            listed = await pbx.cli(f"dialplan show {name}")
            steps = text.count("=>")
            assert re.search(rf"^-= .*\b{steps} priorit", listed, re.MULTILINE), f"{block.where}: {listed}"
            for called in re.findall(r"(?:Gosub|Goto)\(([\w-]+),", text):
                assert f"Context '{called}'" in await pbx.cli(f"dialplan show {called}"), f"{block.where}: {called}"
            applications = set(re.findall(r"^(?:exten => [^,]+,|same => )\w+(?:\(\w+\))?,(\w+)\(", text, re.MULTILINE))
            for application in applications:
                answer = await pbx.cli(f"core show application {application}")
                assert "(are) not registered" not in answer, f"{block.where}: {application}"
        assert pbx.complaints() == []


class OwnUser(AsteriskServer):
    """An Asterisk whose user `fastagi` is the shown one: the test has another."""

    ami_user = "testing"


@pytest.mark.parametrize("version", [22, 16])
async def test_shown_manager_users_load(version: int) -> None:
    """The user is let in from the address that is permitted, and from no other."""
    (block,) = [b for b in blocks() if "[fastagi]" in b.text and re.search(r"^permit = ", b.text, re.MULTILINE)]
    elsewhere = block.text.replace("[fastagi]", "[elsewhere]").replace("127.0.0.1/", "127.0.0.9/")
    (secret,) = re.findall(r"^secret = (.+)$", block.text, re.MULTILINE)
    async with OwnUser(version, extra_files={"custom/manager.conf": f"{block.text}\n{elsewhere}"}) as pbx:
        assert "system,call,user" in await pbx.cli("manager show user fastagi")
        assert pbx.complaints() == []
        async with AmiSession(pbx.ami_host, pbx.ami_port, "fastagi", secret) as ami:
            assert (await ami.action("Ping"))["Response"] == "Success"
        with pytest.raises(PermissionError):
            async with AmiSession(pbx.ami_host, pbx.ami_port, "elsewhere", secret):
                pass


def test_every_permit_stands_behind_deny() -> None:
    """A `permit` alone restricts nothing: Asterisk lets in whom no rule refuses."""
    for page in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/guide/*.md"),
        *ROOT.glob("deploy/*"),
        *ROOT.glob("dialplan/*.conf"),
    ]:
        lines = page.read_text().splitlines()
        for before, line in zip(["", *lines], lines, strict=False):
            if re.search(r"\bpermit = \d", line):
                assert "deny = 0.0.0.0/0" in before, f"{page.name}: {line.strip()}"
