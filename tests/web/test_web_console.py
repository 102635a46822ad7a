"""The console, in a real browser: it shows what there is, as it happens, and runs nothing that a caller sent."""

from __future__ import annotations

import re
from pathlib import Path

from browser import Page, browser
from web_scene import TOKENS, WebScene, web_scene

from fastagi.errors import SinkError

STATIC = Path(__file__).parents[2] / "fastagi" / "web" / "static"

EVIL = "<img src=x onerror=document.title='owned'>"


async def _enter(page: Page, role: str = "viewer") -> None:
    await page.run(f"document.getElementById('token').value = '{TOKENS.get(role, role)}'")
    await page.run("document.querySelector('#enter button').click()")


async def _shown(page: Page) -> list[str]:
    """Which parts of the page can be seen."""
    parts = "[...document.querySelectorAll('#enter, #list, #one, nav')]"
    found: list[str] = await page.run(f"{parts}.filter(e => e.offsetParent).map(e => e.id || 'nav').sort()")
    return found


async def _evil(scene: WebScene) -> str:
    """A recording whose name, numbers and error are hostile."""
    call = scene.ami.call(caller=EVIL, exten=EVIL)
    scene.sink.fault = SinkError(EVIL, retry=False)
    job = await scene.record(call, "calls/" + EVIL.replace("/", ""))
    await scene.until(lambda: scene.grown() > 0)
    scene.ami.hangup(call)
    assert await job.wait(20)
    await scene.until(lambda: scene.parts.courier.stats()["dead"])
    return job.id


async def test_the_page_is_static_and_allows_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with web_scene(tmp_path, up=False) as scene:
        for path, kind in (("/", "text/html"), ("/console.js", "text/javascript"), ("/console.css", "text/css")):
            status, body, response = await scene.request("GET", path)
            assert (status, response.content_type) == (200, kind)
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            tag = response.headers["ETag"]
            assert (await scene.request("GET", path, headers={"If-None-Match": tag}))[0] == 304
            assert not re.search(r"https?://", body), "nothing from elsewhere"
    script = (STATIC / "console.js").read_text()
    for dangerous in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage"):
        assert dangerous not in script


async def test_what_there_is_is_shown_and_what_a_caller_sent_is_only_text(tmp_path: Path) -> None:
    async with web_scene(tmp_path) as scene, browser(tmp_path) as chromium:
        recording = await _evil(scene)
        page = await chromium.open(scene.url("/"))
        await page.until("document.getElementById('ready').textContent == 'Ready'")
        assert await _shown(page) == ["enter"], "nothing is shown without a token"

        await _enter(page, "wrong-0123456789abcdef")
        await page.until("document.getElementById('fault').textContent.includes('not known')")
        assert await _shown(page) == ["enter"]
        wrong = [f for f in page.faults if "401" in f]
        assert wrong == page.faults, "the browser notes the refusal and nothing else"
        page.faults.clear()

        await _enter(page)
        await page.until("document.querySelectorAll('#list tbody tr').length == 1")
        assert await _shown(page) == ["list", "nav"]
        shown = await page.run("document.querySelector('#list tbody').innerText")
        assert EVIL in shown
        assert "HANGUP" in shown
        assert await page.run("document.querySelectorAll('img').length") == 0

        await page.run("document.querySelector('#list tbody a').click()")
        await page.until("!document.getElementById('one').hidden")
        assert await page.run("location.hash") == f"#recording/{recording}"
        told = await page.run("document.getElementById('one').innerText")
        for wanted in (EVIL, "PJSIP/", "finished", "SHA-256", "dead"):
            assert wanted in told
        await page.until("!document.querySelector('canvas').hidden")
        painted = "(c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(x => x))"
        assert await page.run(f"{painted}(document.querySelector('canvas'))"), "a waveform is drawn"
        await page.run("document.getElementById('play').click()")
        await page.until("document.querySelector('audio').src.startsWith('blob:')")
        await page.until("document.querySelector('audio').readyState > 0")
        await page.run("location.hash = '#deliveries'")
        await page.until("document.getElementById('title').textContent == 'Deliveries'")
        await page.until("document.querySelector('#list tbody').innerText.includes('dead')")
        for view in ("calls", "channels"):
            await page.run(f"location.hash = '#{view}'")
            await page.until(f"document.querySelector('nav [aria-current]').hash == '#{view}'")

        assert await page.run("document.title") == "fastagi", "nothing that a caller sent was run"
        origin = scene.url("/")
        assert all(url.startswith((origin, f"blob:{origin}", "data:")) for url in page.asked), page.asked
        assert page.faults == []

        await page.run("document.getElementById('leave').click()")
        assert await page.run("sessionStorage.length") == 0
        assert await _shown(page) == ["enter"]


async def test_a_call_that_begins_and_ends_is_seen_without_touching_the_page(tmp_path: Path) -> None:
    async with web_scene(tmp_path) as scene, browser(tmp_path) as chromium:
        page = await chromium.open(scene.url("/"))
        await _enter(page)
        await page.until("!document.getElementById('list').hidden")
        assert await page.run("document.querySelectorAll('#list tbody tr').length") == 0
        call = scene.ami.call()
        job = await scene.record(call)
        await page.until("document.querySelector('#list tbody').innerText.includes('active')")
        await scene.until(lambda: scene.grown() > 0)
        scene.ami.hangup(call)
        await page.until("document.querySelector('#list tbody').innerText.includes('finished')")
        assert await job.wait(20)
        assert page.faults == []
