// The console: looks through the API, changes nothing. No framework, nothing from elsewhere; what comes from a call
// (names, numbers, errors) is only ever written as text.
"use strict";

const KEY = "fastagi-token";
const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem(KEY) || "";
let turn = 0; // what was asked for before the last click is not shown any more
let following = null;
let loaded = "";

const VIEWS = {
  recordings: {
    title: "Recordings",
    columns: [
      ["Requested", (r) => when(r.requested_at)],
      ["State", (r) => r.phase, (r) => (r.state === "ERROR" ? "bad" : r.state === "RECORDING" ? "good" : "")],
      ["Cause", (r) => (r.cause === "NONE" ? "" : r.cause)],
      ["From", (r) => r.caller],
      ["To", (r) => r.called],
      ["Length", (r) => seconds(r.audio_seconds ?? r.duration_seconds)],
      ["Name", (r) => r.name, "long", (r) => `#recording/${r.id}`],
      ["", (r) => notes(r), "bad"],
    ],
    filters: [["search", "Name, file, number or uniqueid"], ["state", "Any state", ["RECORDING", "IDLE", "ERROR"]],
      ["cause", "Any cause", ["HANGUP", "ABORTED", "TIMEOUT", "SILENCE", "SIZE", "ERROR"]]],
    live: true,
  },
  deliveries: {
    title: "Deliveries",
    columns: [
      ["Made", (d) => when(d.created_at)],
      ["Status", (d) => d.status, (d) => (["dead", "parked"].includes(d.status) ? "bad" : "")],
      ["Sink", (d) => d.sink],
      ["Attempts", (d) => String(d.attempts)],
      ["Again", (d) => when(d.next_at)],
      ["Recording", (d) => d.recording_id, "short", (d) => `#recording/${d.recording_id}`],
      ["Last error", (d) => d.last_error, "long"],
    ],
    filters: [["status", "Any status", ["waiting", "running", "delivered", "dead", "parked"]], ["sink", "Sink"]],
    live: true,
  },
  calls: {
    title: "Calls that have to be recorded",
    columns: [
      ["Answered", (c) => when(c.answered_at)],
      ["From", (c) => c.caller],
      ["To", (c) => c.called],
      ["Context", (c) => c.context],
      ["Channel", (c) => c.channel],
      ["Verdict", (c) => c.verdict ?? "runs", (c) => (c.verdict && c.verdict !== "recorded" ? "bad" : "")],
      ["Reason", (c) => c.reason, "long"],
      ["Recording", (c) => c.recording_id ?? "", "short", (c) => c.recording_id && `#recording/${c.recording_id}`],
    ],
    filters: [["incomplete", "All", ["yes"]]],
  },
  channels: {
    title: "Channels up now",
    columns: [
      ["Since", (c) => when(c.since)],
      ["Asterisk", (c) => c.asterisk],
      ["Channel", (c) => c.channel, "long"],
      ["From", (c) => c.caller],
      ["To", (c) => c.extension],
      ["", (c) => (c.answered ? "" : "not answered")],
      ["Recorded", (c) => c.recordings[0] ?? "no", "short", (c) => c.recordings[0] && `#recording/${c.recordings[0]}`],
    ],
    filters: [],
    live: true,
  },
};

function when(text) {
  return text ? new Date(text).toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" }) : "";
}

function seconds(value) {
  if (value === null || value === undefined) return "";
  const whole = Math.round(value);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function notes(r) {
  const found = ["silent", "one_sided", "salvaged"].filter((name) => r.facts[name] === true);
  if (r.legal_hold) found.push("held");
  if (r.deleted_at) found.push("deleted");
  if (r.error) found.push(r.error);
  return found.join(", ").replaceAll("_", "-");
}

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` } });
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const fault = new Error(body.error || `HTTP ${response.status}`);
  fault.status = response.status;
  throw fault;
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function row(columns, item) {
  const made = element("tr");
  for (const [, text, style, link] of columns) {
    const cell = element("td", undefined, typeof style === "function" ? style(item) : style);
    const target = link && link(item);
    if (target) {
      const anchor = element("a", text(item));
      anchor.href = target;
      cell.append(anchor);
    } else cell.textContent = text(item) ?? "";
    made.append(cell);
  }
  return made;
}

function fill(table, columns, items, keep = false) {
  const head = element("tr");
  for (const [name] of columns) {
    const cell = element("th", name);
    cell.scope = "col";
    head.append(cell);
  }
  table.tHead.replaceChildren(head);
  const rows = items.map((item) => row(columns, item));
  if (keep) table.tBodies[0].append(...rows);
  else table.tBodies[0].replaceChildren(...rows);
}

function say(fault) {
  $("fault").textContent = fault ? fault.message : "";
  $("fault").hidden = !fault;
  if (fault && fault.status === 401) leave(false);
}

function show(id) {
  for (const part of ["enter", "list", "one"]) $(part).hidden = part !== id;
  document.querySelector("nav").hidden = $("leave").hidden = id === "enter";
}

function build(name) {
  const form = $("filter");
  if (form.dataset.view === name) return;
  form.dataset.view = name;
  form.replaceChildren(...VIEWS[name].filters.map(([key, words, values]) => {
    const made = element(values ? "select" : "input");
    made.name = key;
    made.setAttribute("aria-label", words);
    if (!values) {
      made.type = "search";
      made.placeholder = words;
      return made;
    }
    made.append(new Option(words, ""), ...values.map((v) => new Option(key === "incomplete" ? "Not recorded" : v, v)));
    return made;
  }));
}

async function list(name, cursor = "") {
  const mine = ++turn;
  const view = VIEWS[name];
  build(name);
  $("title").textContent = view.title;
  const query = new URLSearchParams([...new FormData($("filter"))].filter(([, value]) => value !== ""));
  if (cursor) query.set("cursor", cursor);
  if (name === "channels") query.set("limit", "1000");
  const body = await (await ask(`/api/v1/${name}?${query}`)).json();
  if (mine !== turn) return;
  fill(document.querySelector("#list table"), view.columns, body[name], cursor !== "");
  $("none").hidden = body[name].length > 0 || cursor !== "";
  $("more").hidden = !body.next;
  $("more").dataset.cursor = body.next ?? "";
  $("list").dataset.pages = cursor ? "more" : "one";
  show("list");
}

async function one(id) {
  const mine = ++turn;
  const r = await (await ask(`/api/v1/recordings/${encodeURIComponent(id)}`)).json();
  if (mine !== turn) return;
  $("one-title").textContent = r.name || r.id;
  $("alarms").textContent = (r.alarms ?? []).join(", ").replaceAll("_", "-");
  $("alarms").className = "bad";
  const facts = {
    State: `${r.phase}${r.cause === "NONE" ? "" : `, ${r.cause}`}`, Error: r.error, Caller: r.caller, Called: r.called,
    Channel: `${r.channel} on ${r.asterisk}`, Uniqueid: r.uniqueid, Started: when(r.started_at), Ended: when(r.ended_at),
    Audio: r.audio_seconds === null ? "" : `${r.audio_seconds} s, ${r.bytes} bytes`,
    Format: `${r.file_format}, ${r.rate} Hz, ${r.mode}${r.encryption ? `, ${r.encryption}` : ""}`, File: r.file_path,
    "SHA-256": r.sha256, Server: r.node, "Worth knowing": notes(r), Id: r.id,
  };
  document.querySelector("#one dl").replaceChildren(...Object.entries(facts).filter(([, value]) => value)
    .flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  fill($("one-deliveries"), VIEWS.deliveries.columns.filter(([name]) => name !== "Recording"), r.deliveries);
  fill($("one-journal"), [["At", (e) => when(e.at)], ["Event", (e) => e.event], ["Phase", (e) => e.to_phase ?? ""],
    ["", (e) => (Object.keys(e.detail).length ? JSON.stringify(e.detail) : ""), "long"]], r.journal);
  show("one");
  if (loaded !== id) {
    silence();
    loaded = id;
  }
  const whole = r.phase === "finished" && !r.deleted_at;
  $("sound").hidden = !whole;
  document.querySelector("canvas").hidden = true;
  if (whole && !r.encryption) {
    const peaks = await (await ask(`/api/v1/recordings/${encodeURIComponent(id)}/peaks?points=800`)).json();
    if (mine === turn) draw(peaks);
  }
}

function draw({ peaks, channels, full_scale: full }) {
  const canvas = document.querySelector("canvas");
  canvas.hidden = false;
  const paint = canvas.getContext("2d");
  paint.clearRect(0, 0, canvas.width, canvas.height);
  paint.fillStyle = getComputedStyle(canvas).color;
  const height = canvas.height / channels;
  const width = canvas.width / Math.max(1, peaks.length);
  peaks.forEach((step, x) => step.forEach(([low, high], channel) => {
    const middle = height * (channel + 0.5);
    const top = middle - (high / full) * (height / 2);
    paint.fillRect(x * width, top, Math.max(1, width - 0.5), Math.max(1, ((high - low) / full) * (height / 2)));
  }));
}

function silence() {
  const audio = document.querySelector("audio");
  if (audio.src) URL.revokeObjectURL(audio.src);
  audio.removeAttribute("src");
  audio.hidden = true;
  $("play").hidden = false;
}

async function play() {
  const id = loaded;
  const blob = await (await ask(`/api/v1/recordings/${encodeURIComponent(id)}/audio`)).blob();
  if (id !== loaded) return;
  const audio = document.querySelector("audio");
  audio.src = URL.createObjectURL(blob);
  audio.hidden = false;
  $("play").hidden = true;
  audio.play().catch(() => {}); // a browser that does not know the codec shows so itself
}

function place() {
  const [name, id] = decodeURIComponent(location.hash.slice(1)).split("/");
  return name === "recording" && id ? { name, id } : { name: name in VIEWS ? name : "recordings" };
}

async function refresh() {
  if (!token) return show("enter");
  const { name, id } = place();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    await (id ? one(id) : list(name));
    say(null);
  } catch (fault) {
    say(fault);
  }
}

async function ready() {
  try {
    const body = await (await fetch("/readyz")).json();
    const words = body.problems.map((p) => `${p.what}: ${p.problem}`);
    $("ready").textContent = body.ready ? "Ready" : words.join("; ");
    $("ready").className = body.ready ? "good" : "bad";
    $("ready").title = body.problems.map((p) => p.do).join("\n");
  } catch {
    $("ready").textContent = "The server does not answer";
    $("ready").className = "bad";
  }
}

// EventSource cannot send a token, so the stream is read here; what it says is only "something is new".
async function follow() {
  const stop = (following = new AbortController());
  let last = "";
  while (!stop.signal.aborted) {
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const response = await ask("/api/v1/events", { headers, signal: stop.signal });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) last = /^id: (\d+)/m.exec(part)?.[1] ?? last;
        if (parts.some((part) => /^data: /m.test(part))) soon();
      }
    } catch (fault) {
      if (fault.status === 401) return;
    }
    await new Promise((done) => setTimeout(done, 3000));
  }
}

let timer = 0;
function soon() {
  const { name, id } = place();
  const reading = !id && $("list").dataset.pages === "more"; // somebody leafs through older pages: leave them alone
  if (timer || reading || !(id || VIEWS[name].live)) return;
  timer = setTimeout(() => { timer = 0; refresh(); }, 500);
}

function enter(value) {
  token = value;
  sessionStorage.setItem(KEY, token);
  refresh().then(() => { if (token) follow(); });
}

function leave(clean = true) {
  token = "";
  sessionStorage.removeItem(KEY);
  following?.abort();
  silence();
  show("enter");
  if (clean) say(null);
  $("token").focus();
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const value = $("token").value.trim();
  $("token").value = "";
  enter(value);
});
$("leave").addEventListener("click", () => leave());
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("filter").addEventListener("input", () => refresh());
$("more").addEventListener("click", () => list(place().name, $("more").dataset.cursor).catch(say));
$("play").addEventListener("click", () => play().catch(say));
addEventListener("hashchange", () => refresh());
ready();
setInterval(ready, 10000);
if (token) enter(token);
else show("enter");
