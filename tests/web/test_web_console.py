"""The console, in a real browser: it shows what there is, as it happens, and runs nothing that a caller sent."""

from __future__ import annotations

import re
import time
from pathlib import Path

from fastagi.errors import SinkError
from support.browser import Page, browser
from support.delivery_harness import finish_many
from support.web_harness import TOKENS, WebScene, web_scene

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


async def test_page_allows_no_foreign_content(tmp_path: Path) -> None:
    """The page is static and allows nothing from elsewhere."""
    async with web_scene(tmp_path, up=False) as scene:
        files = {"/": "text/html", **dict.fromkeys(("/console.js", "/sound.js"), "text/javascript")}
        for path, kind in {**files, "/console.css": "text/css"}.items():
            status, body, response = await scene.request("GET", path)
            assert (status, response.content_type) == (200, kind)
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            tag = response.headers["ETag"]
            assert (await scene.request("GET", path, headers={"If-None-Match": tag}))[0] == 304
            assert not re.search(r"https?://", body), "nothing from elsewhere"
    script = "".join(file.read_text() for file in STATIC.glob("*.js"))
    for dangerous in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage"):
        assert dangerous not in script


async def test_caller_data_is_only_text(tmp_path: Path) -> None:
    """Recordings are shown, and a caller's data is only text."""
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
        await page.until("!document.getElementById('wave').hidden")
        painted = "(c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(x => x))"
        assert await page.run(f"{painted}(document.querySelector('canvas'))"), "a waveform is drawn"
        await page.run("document.getElementById('play').click()")
        await page.until("document.querySelector('audio').src.startsWith('blob:')")
        await page.until("document.querySelector('audio').readyState > 0")
        await page.run("location.hash = '#deliveries'")
        await page.until("document.getElementById('title').textContent == 'Deliveries'")
        await page.until("document.querySelector('#list tbody').innerText.includes('dead')")
        await scene.parts.store.run(finish_many, scene.parts.courier, 1, 1, f"old{EVIL}", time.time())
        await scene.parts.courier._upkeep.round()
        await page.run("location.hash = '#deliveries?status=parked'")
        await page.until("document.querySelector('#list tbody').innerText.includes('no server that runs has a sink')")
        for view in ("calls", "channels"):
            await page.run(f"location.hash = '#{view}'")
            await page.until(f"document.querySelector('nav [aria-current]').hash == '#{view}'")

        await page.until("document.title == 'Channels up now - fastagi'")  # nothing that a caller sent was run
        origin = scene.url("/")
        assert all(url.startswith((origin, f"blob:{origin}", "data:")) for url in page.asked), page.asked
        assert page.faults == []

        await page.run("document.getElementById('leave').click()")
        assert await page.run("sessionStorage.length") == 0
        assert await _shown(page) == ["enter"]


async def test_page_follows_calls_live(tmp_path: Path) -> None:
    """A call that begins and ends is seen without touching the page."""
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


async def test_search_is_kept_in_address(tmp_path: Path) -> None:
    """Found by number, agent or day; "back" and a copied link show the same; the keyboard stays where it was."""
    async with web_scene(tmp_path) as scene, browser(tmp_path) as chromium:
        calls = [scene.ami.call(caller=number) for number in ("0221100", "0301100")]
        jobs = [await scene.record(call) for call in calls]
        page = await chromium.open(scene.url("/"))
        await _enter(page)
        rows = "document.querySelectorAll('#list tbody tr').length"
        await page.until(f"{rows} == 2")

        await page.run("document.querySelector('#filter input').focus()")
        await page.tell("Input.insertText", text="0221")
        await page.until(f"{rows} == 1")
        assert await page.run("location.hash") == "#recordings?search=0221"
        await page.run("document.querySelector('#list tbody a').focus()")
        await scene.until(lambda: scene.grown() > 0)
        scene.ami.hangup(calls[0])
        await page.until("document.querySelector('#list tbody').innerText.includes('finished')")
        assert await page.run("document.activeElement.hash") == f"#recording/{jobs[0].id}", "a new row took the focus"

        await page.tell("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", text="\r")
        await page.until("!document.getElementById('one').hidden")
        assert await page.run("document.title.startsWith('0221100 ')")
        await page.until("document.activeElement.id == 'one-title'")  # read out, and Tab goes on from there
        await page.run("document.querySelector('#one dl a').click()")  # all recordings of that call
        await page.until(f"location.hash == '#recordings?search={jobs[0].recording.uniqueid}' && {rows} == 1")
        await page.run("history.go(-2)")
        await page.until("location.hash == '#recordings?search=0221'")
        await page.until("document.querySelector('#filter input').value == '0221'")

        await page.run("location.hash = '#recordings?since=2000-01-01&until=2000-01-02'")
        await page.until("document.getElementById('none').textContent == 'Nothing fits these filters.'")
        await page.until("!document.getElementById('none').hidden")
        await page.run("document.getElementById('clear').click()")
        await page.until(f"{rows} == 2 && document.getElementById('clear').hidden")
        today = "new Date().toLocaleDateString('sv-SE')"
        await page.run(f"location.hash = '#recordings?since=' + {today} + '&until=' + {today}")
        await page.until(f"location.hash.includes('since') && !document.getElementById('clear').hidden && {rows} == 2")
        assert page.faults == []


async def test_missing_recording_shows_no_other(tmp_path: Path) -> None:
    async with web_scene(tmp_path) as scene, browser(tmp_path) as chromium:
        call = scene.ami.call()
        job = await scene.record(call)
        await scene.until(lambda: scene.grown() > 0)
        scene.ami.hangup(call)
        assert await job.wait(20)
        page = await chromium.open(scene.url(f"/#recording/{job.id}"))
        await _enter(page)
        await page.until("!document.getElementById('wave').hidden")
        await page.run("document.querySelector('canvas').click()")  # to hear it from there
        await page.until("!document.querySelector('audio').hidden")
        await page.run("HTMLAnchorElement.prototype.click = function () { window.saved = this.download; }")
        await page.run("document.getElementById('save').click()")
        await page.until(f"window.saved == '{Path(job.recording.file_path).name}'")
        await page.run("location.hash = '#recording/rec-nothing'")
        await page.until("document.getElementById('fault').textContent == 'there is no recording rec-nothing'")
        assert await _shown(page) == ["nav"]
        assert await page.run("document.querySelector('audio').src") == "", "and it does not go on being heard"
        await page.run("location.hash = '#recordings'")
        await page.until("document.getElementById('fault').hidden")
        assert await _shown(page) == ["list", "nav"]


async def test_narrow_screen_shows_everything(tmp_path: Path) -> None:
    async with web_scene(tmp_path) as scene, browser(tmp_path) as chromium:
        await _evil(scene)
        page = await chromium.open(scene.url("/"))
        await page.tell("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=True)
        await _enter(page)
        for hash_, part in (("#recordings", "list"), ("#deliveries", "list"), ("#channels", "list")):
            await page.run(f"location.hash = '{hash_}'")
            await page.until(f"!document.getElementById('{part}').hidden")
            widest = f"'rec-' + '{'m' * 26}'"  # which letters an id has is chance
            await page.run(f"document.querySelectorAll('main td a').forEach(e => {{ e.textContent = {widest}; }})")
            wide = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > 361)"
            assert await page.run(f"{wide}.map(e => e.tagName + ' ' + e.textContent)") == []
