// The console: looks through the API, changes nothing. No framework, nothing from elsewhere; what comes from a call
// (names, numbers, errors) is only ever written as text. The sound of a recording is sound.js'.
"use strict";

const KEY = "fastagi-token";
const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem(KEY) || "";
let turn = 0; // what was asked for before the last click is not shown any more
let following = null;
let shown = ""; // what the page shows now: a view with its filters, or a recording

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
      ["Notes", (r) => notes(r), "notes"],
    ],
    filters: [["search", "Number, name, channel or id"], ["since", "Since", "date"], ["until", "Until", "date"], ["state", "Any state", ["RECORDING", "IDLE", "ERROR"]],
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
      ["Last error", (d) => d.hint || d.last_error, "long"],
    ],
    filters: [["status", "Any status", ["waiting", "running", "delivered", "dead", "parked"]], ["sink", "Sink"]],
    live: true,
  },
  calls: {
    title: "Calls up now, and those that had to be recorded",
    columns: [
      ["Answered", (c) => when(c.answered_at)],
      ["From", (c) => c.caller],
      ["To", (c) => c.called],
      ["Context", (c) => c.context],
      ["Channel", (c) => c.channel],
      ["Verdict", (c) => c.verdict ?? (c.ended_at ? "not judged yet" : "up"), (c) => (c.verdict && c.verdict !== "recorded" ? "bad" : "")],
      ["Reason", (c) => c.reason, "long"],
      ["Recording", (c) => proof(c) ?? "", "short", (c) => proof(c) && `#recording/${proof(c)}`],
    ],
    filters: [["incomplete", "All", ["yes"]]],
    live: true,
  },
  channels: {
    title: "Channels up now",
    columns: [
      ["Since", (c) => when(c.since)],
      ["Asterisk", (c) => c.asterisk],
      ["Channel", (c) => c.channel, "long"],
      ["From", (c) => c.caller],
      ["To", (c) => c.extension],
      ["Answered", (c) => (c.answered ? "yes" : "no")],
      ["Recorded", (c) => c.recordings[0] ?? (c.elsewhere ? "on the call's other side" : "no"), "short",
        (c) => (c.recordings[0] ?? c.elsewhere) && `#recording/${c.recordings[0] ?? c.elsewhere}`],
    ],
    filters: [],
    live: true,
  },
};

// 2026-11-21 14:05:09, in the time zone of whoever looks: sorts, and is the same everywhere.
function when(text) {
  return text ? new Date(text).toLocaleString("sv-SE") : "";
}

function seconds(value) {
  if (value === null || value === undefined) return "";
  const whole = Math.round(value);
  const minutes = Math.floor(whole / 60);
  const rest = String(whole % 60).padStart(2, "0");
  return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

function size(bytes) {
  if (bytes === null) return "";
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function notes(r) {
  const found = ["silent", "one_sided", "salvaged"].filter((name) => r.facts[name] === true);
  if (r.facts.clipped && !r.facts.limited) found.push("clipped");
  if (r.legal_hold) found.push("on hold");
  if (r.deleted_at) found.push("deleted");
  if (r.error) found.push(r.error);
  return found.join(", ").replaceAll("_", "-");
}

// The recording that its verdict rests on, else the newest of its channel.
function proof(c) {
  return c.recording_id ?? c.recordings.at(-1);
}

// What an entry of the journal says beyond its name: {who: "x", forced: false} is "who x".
function told(detail) {
  return Object.entries(detail).filter(([, value]) => value !== false && value !== "" && value !== null)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(", ");
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
  made.setAttribute("role", "row"); // narrow screens show rows as cards, which takes the table's roles away
  for (const [name, text, style, link] of columns) {
    const cell = element("td", undefined, typeof style === "function" ? style(item) : style);
    cell.setAttribute("role", "cell");
    cell.dataset.label = name;
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
  const body = table.tBodies[0];
  if (keep) {
    body.append(...rows);
    return;
  }
  const held = body.contains(document.activeElement) ? document.activeElement.hash : ""; // the keyboard stays where it is
  body.replaceChildren(...rows);
  if (held) [...body.querySelectorAll("a")].find((a) => a.hash === held)?.focus();
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

// Filters are in the address, so that "back" and a copied link show the same.
function build(name, query) {
  const form = $("filter");
  if (form.dataset.view !== name) {
    form.dataset.view = name;
    form.replaceChildren(...VIEWS[name].filters.map(([key, words, values]) => {
      const made = element(Array.isArray(values) ? "select" : "input");
      made.name = key;
      if (Array.isArray(values)) {
        made.setAttribute("aria-label", words);
        made.append(new Option(words, ""), ...values.map((v) => new Option(key === "incomplete" ? "Not recorded" : v, v)));
        return made;
      }
      made.type = values ?? "search";
      if (values) {
        const label = element("label", `${words} `);
        label.append(made);
        return label;
      }
      made.setAttribute("aria-label", words);
      made.placeholder = words;
      return made;
    }));
  }
  for (const field of form.elements) {
    const value = query.get(field.name) ?? "";
    if (field.value !== value && field !== document.activeElement) field.value = value;
  }
}

// Days are whole days of whoever looks: until is the end of that day.
function asked(query) {
  const made = new URLSearchParams(query);
  for (const [name, later] of [["since", 0], ["until", 1]]) {
    const day = /^(\d+)-(\d+)-(\d+)$/.exec(made.get(name) ?? "");
    if (day) made.set(name, new Date(Number(day[1]), Number(day[2]) - 1, Number(day[3]) + later).toISOString());
  }
  return made;
}

async function list(name, query, cursor = "") {
  const mine = ++turn;
  const view = VIEWS[name];
  build(name, query);
  const question = asked(query);
  if (cursor) question.set("cursor", cursor);
  if (name === "channels") question.set("limit", "1000");
  const body = await (await ask(`/api/v1/${name}?${question}`)).json();
  if (mine !== turn) return;
  if (name === "channels") { // a call is recorded on one of its channels
    const calls = new Map(body.channels.filter((c) => c.recordings.length && c.linkedid)
      .map((c) => [`${c.asterisk} ${c.linkedid}`, c.recordings[0]]));
    for (const channel of body.channels) channel.elsewhere = calls.get(`${channel.asterisk} ${channel.linkedid}`);
  }
  $("title").textContent = view.title;
  document.title = `${view.title} - fastagi`;
  fill(document.querySelector("#list table"), view.columns, body[name], cursor !== "");
  const count = document.querySelector("#list tbody").rows.length;
  $("none").hidden = count > 0;
  document.querySelector("#list table").hidden = count === 0;
  $("none").textContent = query.size ? "Nothing fits these filters." : "There is nothing here yet.";
  $("count").textContent = count ? `${count} shown${body.next ? ", older ones below" : ""}` : "";
  $("clear").hidden = !query.size;
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
  document.title = `${r.caller || r.channel} ${when(r.started_at)} - fastagi`;
  $("alarms").textContent = (r.alarms ?? []).join(", ").replaceAll("_", "-");
  $("alarms").className = "bad";
  const length = seconds(r.audio_seconds ?? r.duration_seconds);
  const facts = {
    State: `${r.phase}${r.cause === "NONE" ? "" : `, ${r.cause}`}`, Error: r.error, Notes: r.error ? "" : notes(r),
    From: r.caller, To: r.called, "Talked with": (r.facts.talked_with ?? []).join(", "),
    Started: when(r.started_at), Ended: when(r.ended_at),
    Length: r.audio_seconds === null ? length : `${length}, ${size(r.bytes)}`,
    Paused: r.paused.map(([from, to]) => `${seconds(from)} to ${to === null ? "now" : seconds(to)}`).join(", "),
    Channel: `${r.channel} on ${r.asterisk}`, Uniqueid: r.uniqueid, Call: r.linkedid || r.uniqueid,
    Format: `${r.file_format}, ${r.rate} Hz, ${r.mode}${r.encryption ? `, ${r.encryption}` : ""}`, File: r.file_path,
    "SHA-256": r.sha256, Server: r.node, Id: r.id,
  };
  document.querySelector("#one dl").replaceChildren(...Object.entries(facts).filter(([, value]) => value)
    .flatMap(([name, value]) => [element("dt", name), meaning(name, value)]));
  fill($("one-deliveries"), VIEWS.deliveries.columns.filter(([name]) => name !== "Recording"), r.deliveries);
  fill($("one-journal"), [["At", (e) => when(e.at)], ["Event", (e) => e.event.replaceAll("_", " ")],
    ["Phase", (e) => e.to_phase ?? ""], ["Detail", (e) => told(e.detail), "long"]], r.journal);
  show("one");
  await Sound.of(r, () => mine === turn);
}

function meaning(name, value) {
  if (name !== "Call") return element("dd", value, name === "Error" ? "bad" : undefined);
  const made = element("dd");
  const anchor = element("a", value);
  anchor.href = `#recordings?${new URLSearchParams({ search: value })}`;
  anchor.title = "All recordings of this call";
  made.append(anchor);
  return made;
}

function place() {
  const [path, query] = location.hash.slice(1).split("?");
  const [name, id] = path.split("/").map(decodeURIComponent);
  if (name === "recording" && id) return { name, id, query: new URLSearchParams() };
  return { name: name in VIEWS ? name : "recordings", query: new URLSearchParams(query ?? "") };
}

async function refresh() {
  if (!token) return show("enter");
  const here = location.hash;
  const { name, id, query } = place();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${id ? "recordings" : name}`) link.setAttribute("aria-current", id ? "true" : "page");
    else link.removeAttribute("aria-current");
  }
  if (!id) Sound.away();
  try {
    await (id ? one(id) : list(name, query));
    shown = here;
    say(null);
  } catch (fault) {
    if (shown !== here && fault.status !== 401) { // never another one's facts, or sound, below this one's fault
      Sound.away();
      show("");
    }
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
  $("ready").hidden = false;
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
  Sound.away();
  shown = "";
  document.title = "fastagi";
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
let typing = 0;
$("filter").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    const query = new URLSearchParams([...new FormData($("filter"))].filter(([, value]) => value !== ""));
    history.replaceState(null, "", `#${place().name}${query.size ? `?${query}` : ""}`);
    refresh();
  }, 200);
});
$("clear").addEventListener("click", () => {
  location.hash = `#${place().name}`;
  $("filter").elements[0]?.focus();
});
$("more").addEventListener("click", () => list(place().name, place().query, $("more").dataset.cursor).catch(say));
addEventListener("hashchange", async () => {
  await refresh();
  if (document.activeElement?.offsetParent) return;
  for (const title of [$("title"), $("one-title")]) if (title.offsetParent) title.focus(); // what had it is hidden now
});
addEventListener("DOMContentLoaded", () => { // sound.js is there by then
  ready();
  setInterval(ready, 10000);
  if (token) enter(token);
  else show("enter");
});
