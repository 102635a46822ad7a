// The sound of the recording that is shown: its waveform, where it plays, and its file. Uses ask, $ and say of console.js.
"use strict";

const Sound = (() => {
  const canvas = document.querySelector("canvas");
  const audio = document.querySelector("audio");
  const QUIETEST = 0.05; // of full scale: what is quieter is not blown up to look loud
  let id = "";
  let file = "";
  let waves = null;

  function away() {
    if (audio.src) URL.revokeObjectURL(audio.src);
    audio.removeAttribute("src");
    audio.hidden = true;
    $("play").hidden = false;
    id = "";
    waves = null;
  }

  async function of(r, current) {
    if (id !== r.id) {
      away();
      id = r.id;
      file = r.file_path.split("/").pop();
    }
    const whole = r.phase === "finished" && !r.deleted_at;
    $("sound").hidden = !whole;
    $("wave").hidden = !waves;
    if (!whole || r.encryption || waves) return;
    const peaks = await (await ask(`/api/v1/recordings/${encodeURIComponent(id)}/peaks?points=800`)).json();
    if (!current()) return;
    waves = { ...peaks, seconds: r.audio_seconds };
    $("wave").hidden = false;
    $("length").textContent = seconds(r.audio_seconds);
    $("sides").hidden = peaks.channels < 2;
    draw();
  }

  function draw() {
    if (!waves) return;
    const { peaks, channels, full_scale: full } = waves;
    const paint = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    const loudest = Math.max(QUIETEST * full, ...peaks.flat(2).map(Math.abs));
    const height = canvas.height / channels;
    const width = canvas.width / Math.max(1, peaks.length);
    const played = audio.duration ? (audio.currentTime / audio.duration) * peaks.length : 0;
    paint.clearRect(0, 0, canvas.width, canvas.height);
    peaks.forEach((step, x) => step.forEach(([low, high], channel) => {
      const top = height * (channel + 0.5) - (high / loudest) * (height / 2 - 2);
      paint.fillStyle = x < played ? style.accentColor : style.color;
      paint.fillRect(x * width, top, Math.max(1, width - 0.5), Math.max(1, ((high - low) / loudest) * (height / 2 - 2)));
    }));
    if (played) paint.fillRect(played * width, 0, 2, canvas.height);
  }

  async function load() {
    if (audio.src) return true;
    const mine = id;
    const blob = await (await ask(`/api/v1/recordings/${encodeURIComponent(mine)}/audio`)).blob();
    if (mine !== id) return false;
    audio.src = URL.createObjectURL(blob);
    audio.hidden = false;
    $("play").hidden = true;
    return true;
  }

  async function play(from = 0) {
    if (!(await load())) return;
    if (from) {
      if (!audio.readyState) await new Promise((done) => audio.addEventListener("loadedmetadata", done, { once: true }));
      audio.currentTime = from * audio.duration;
    }
    audio.play().catch(() => {}); // a browser that does not know the codec shows so itself
  }

  async function save() {
    if (!(await load())) return;
    const anchor = document.createElement("a");
    anchor.href = audio.src;
    anchor.download = file;
    anchor.click();
  }

  $("play").addEventListener("click", () => play().catch(say));
  $("save").addEventListener("click", () => save().catch(say));
  canvas.addEventListener("click", (event) => play(event.offsetX / canvas.clientWidth).catch(say));
  for (const event of ["timeupdate", "seeked", "loadedmetadata", "ended"]) audio.addEventListener(event, draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return { of, away };
})();
