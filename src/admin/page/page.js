// The page of the admin interface: shows the samples of one stream, and asks where a client goes.
//
// Computes no rate and no rule: samples have them. Invariants: every text goes in by textContent, for names and reasons
// come from elsewhere; a node is changed only if its text is another one, so that nothing is read out or loses the focus
// without a cause; what is shown says at once when it is old.
"use strict";

const SILENT_MS = 5000; // a sample comes each second
const FRESH_MS = 60000;
const REPLY_MS = 10000;
const LATE = `no reply within ${REPLY_MS / 1000} seconds`;

const at = (id) => document.getElementById(id);

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function mark(node, name, value) {
  if (!value) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

function make(tag, text, style) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (style) node.className = style;
  return node;
}

// Gives a parent one child for each item, in their order; a child stays with its key.
function keep(parent, items, key, born, fill) {
  const known = new Map();
  for (const child of [...parent.children]) {
    if (child.dataset.key === undefined) child.remove();
    else known.set(child.dataset.key, child);
  }
  let before = null;
  for (const item of items) {
    const name = key(item);
    let child = known.get(name);
    known.delete(name);
    if (!child) {
      child = born(item);
      child.dataset.key = name;
    }
    fill(child, item);
    const next = before ? before.nextSibling : parent.firstChild;
    if (next !== child) parent.insertBefore(child, next);
    before = child;
  }
  for (const child of known.values()) child.remove();
}

// ---- Words

const whole = new Intl.NumberFormat("en");
const count = (value) => whole.format(value);

function rate(value) {
  if (value === null || value === undefined) return "–";
  return value > 0 && value < 9.95 ? value.toFixed(1) : count(Math.round(value));
}

function size(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B/s", "KiB/s", "MiB/s", "GiB/s", "TiB/s"];
  let unit = 0;
  while (value >= 1024 && unit + 1 < units.length) {
    value /= 1024;
    unit += 1;
  }
  return (unit > 0 && value < 99.5 ? value.toFixed(1) : Math.round(value)) + " " + units[unit];
}

function lasting(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
  if (days > 0) return `${days} d ${hours % 24} h`;
  if (hours > 0) return `${hours} h ${minutes % 60} min`;
  return minutes > 0 ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

function micros(value) {
  if (value < 1000) return `${value} µs`;
  return value < 1000000 ? `${value / 1000} ms` : `${value / 1000000} s`;
}

function times(what, bounds) {
  return bounds ? `${what} ≤ ${micros(bounds.half_us)} for half, ≤ ${micros(bounds.most_us)} for 99 of 100` : "";
}

// A time of today, or the date and the time.
function clock(ms) {
  const [time, now] = [new Date(ms), new Date()];
  return time.toDateString() === now.toDateString() ? time.toLocaleTimeString("en-GB") : time.toLocaleString("sv-SE");
}

const percent = (share) => (100 * share).toFixed(share < 0.0995 ? 1 : 0) + " %";

const CAUSES = {
  down: "its backend could not serve",
  drain: "its backend was drained",
  removed: "its backend was removed",
  range: "its range no longer allows that backend",
  moved: "backends were added or changed (on_add)",
  returned: "a former backend is back (on_return)",
  full: "its backend was full",
  expired: "its cookie was too old",
};

const REFUSALS = {
  no_route: "no route takes it, and no default pool",
  misdirected: "the host of the request has other rules of TLS than the connection",
  no_backend: "no backend can serve",
  backend_full: "every backend that could serve is full",
  queue_full: "too many clients wait for the backend already",
  queue_timeout: "no place at the backend became free in time",
  settled_down: "its backend cannot serve, and on_down = \"reject\"",
};

// State of a backend: its words, since when, and how bad it is.
function standing(backend) {
  const healthy = backend.state === "up" || backend.state === "unchecked";
  if (backend.runtime) {
    const words = healthy ? backend.runtime : `${backend.runtime}, ${backend.state}`;
    return { words, since: backend.drain_s, mark: healthy ? "warn" : "bad" };
  }
  const mild = backend.state === "awaited" ? "warn" : "bad";
  return { words: backend.state, since: backend.since_s, mark: healthy ? "good" : mild };
}

// ---- Tables

function row(labels) {
  return () => {
    const line = make("tr");
    line.setAttribute("role", "row");
    labels.forEach(([label, style], index) => {
      const cell = make(index === 0 ? "th" : "td", undefined, style);
      cell.setAttribute("role", index === 0 ? "rowheader" : "cell");
      if (index === 0) cell.scope = "row";
      cell.dataset.label = label;
      line.append(cell);
    });
    return line;
  };
}

function table(labels, name) {
  const node = make("table");
  node.setAttribute("role", "table");
  node.setAttribute("aria-label", name);
  const [head, line, body] = [make("thead"), make("tr"), make("tbody")];
  head.setAttribute("role", "rowgroup");
  body.setAttribute("role", "rowgroup");
  line.setAttribute("role", "row");
  for (const [label, style] of labels) {
    const cell = make("th", label, style === "number" ? style : "");
    cell.setAttribute("role", "columnheader");
    cell.scope = "col";
    line.append(cell);
  }
  head.append(line);
  node.append(head, body);
  return node;
}

// A text with a smaller one below.
function pair(cell, text, below) {
  if (!cell.firstChild) cell.append(make("span"), make("small"));
  say(cell.firstChild, text);
  say(cell.lastChild, below || "");
  cell.lastChild.hidden = !below;
}

const BACKEND = [["Backend"], ["State", "wide"], ["Open", "number"], ["New per second", "number"],
  ["From clients", "number"], ["To clients", "number"], ["Failed connects", "number"]];

function fillBackend(line, backend) {
  const [name, state, open, fresh, up, down, failed] = line.children;
  const traits = [backend.address, backend.backup && "backup", backend.weight !== 1 && `weight ${backend.weight}`];
  pair(name, backend.name, traits.filter(Boolean).join(", "));
  const { words, since, mark: bad } = standing(backend);
  pair(state, lasting(since) ? `${words} for ${lasting(since)}` : words, backend.complaint);
  state.firstChild.className = "state";
  mark(state.firstChild, "data-mark", bad);
  mark(line, "data-mark", bad === "good" ? "" : bad);
  const rates = backend.per_s || {};
  pair(open, count(backend.leases), backend.max_connections ? `of ${count(backend.max_connections)}` : "");
  say(fresh, rate(rates.connections));
  say(up, size(rates.bytes_up));
  say(down, size(rates.bytes_down));
  pair(failed, count(backend.connect_failures), rates.failures > 0 ? `${rate(rates.failures)} per second` : "");
}

function bornPool(pool) {
  const node = make("section", undefined, "pool");
  const title = make("h3", pool.name);
  node.append(title, make("p"), table(BACKEND, `Backends of pool ${pool.name}`));
  return node;
}

function fillPool(node, pool) {
  const facts = [pool.balance, pool.requests_per_s !== null && `${rate(pool.requests_per_s)} requests per second`,
    times("connect", pool.connect), times("first byte", pool.first_byte)];
  say(node.children[1], facts.filter(Boolean).join(" · "));
  keep(node.querySelector("tbody"), pool.backends, (backend) => backend.name, row(BACKEND), fillBackend);
}

const LISTENER = [["Listener"], ["Accepts on", "wide"], ["Open", "number"], ["New per second", "number"]];

function fillListener(line, listener) {
  const [name, bind, open, fresh] = line.children;
  say(name, listener.name);
  say(bind, listener.bind.join(", "));
  pair(open, count(listener.open), listener.max ? `of ${count(listener.max)}` : "");
  say(fresh, rate(listener.accepted_per_s));
}

// When a count was last seen to rise, by the name of its row; the first look says nothing of the time before.
const risen = new Map();
let looked = false;

function fillCount(line, key, now, value) {
  let before = risen.get(key) || { value: looked ? 0 : value, at: 0 };
  if (value < before.value) before = { value: 0, at: 0 }; // it counts from nothing again
  const seen = { value, at: value > before.value ? now : before.at };
  risen.set(key, seen);
  const [total, last] = [line.children[3], line.children[4]];
  say(total, count(value));
  say(last, seen.at ? clock(seen.at) : "before this page");
  last.classList.toggle("fresh", seen.at > 0 && now - seen.at < FRESH_MS);
}

const MOVE = [["Pool"], ["Had"], ["Cause", "wide"], ["Since the start", "number"], ["Last seen", "number"]];
const FAULT = [["Where"], ["What"], ["Side at fault"], ["Since the start", "number"], ["Last seen", "number"]];

function showCounts(sample) {
  const moves = sample.pools.flatMap((pool) => pool.moves.map((move) => ({ pool: pool.name, ...move })));
  keep(at("move-rows"), moves, (move) => JSON.stringify([move.pool, move.from, move.cause]), row(MOVE), (line, move) => {
    const [pool, from, cause] = line.children;
    say(pool, move.pool);
    say(from, move.from);
    pair(cause, move.cause, CAUSES[move.cause]);
    fillCount(line, "move " + line.dataset.key, sample.unix_ms, move.count);
  });
  const faultKey = (fault) => JSON.stringify([fault.place, fault.word, fault.side]);
  keep(at("fault-rows"), sample.faults, faultKey, row(FAULT), (line, fault) => {
    const [place, word, side] = line.children;
    say(place, fault.place);
    say(word, fault.word);
    say(side, fault.side === "us" ? "sessile" : fault.side);
    fillCount(line, "fault " + line.dataset.key, sample.unix_ms, fault.count);
  });
  looked = true;
  for (const [rows, none] of [["move-rows", "no-moves"], ["fault-rows", "no-faults"]]) {
    const empty = at(rows).children.length === 0;
    at(rows).parentNode.classList.toggle("empty", empty);
    at(none).hidden = !empty;
  }
}

// ---- Stick tables

const AGE = [["Last seen"], ["Clients", "number"], ["Share"]];
const HOT = [["Key"], ["Share of picks", "number"], ["Backend"]];

function bornTable(item) {
  const node = make("section", undefined, "stick-table");
  const both = make("div");
  both.append(table(AGE, `Known clients of ${item.name} by age`), table(HOT, `Hottest keys of ${item.name}`));
  node.append(make("h3", item.name), make("p"), both);
  return node;
}

// Ages are minutes, as "15m", and "older".
function ages(known) {
  const minutes = (age) => (age === "older" ? Infinity : parseInt(age, 10));
  const named = (age) => (age === "older" ? "longer ago" : `up to ${lasting(60 * minutes(age))} ago`);
  const sorted = Object.entries(known).sort((a, b) => minutes(a[0]) - minutes(b[0]));
  return sorted.filter((entry) => entry[1] > 0).map(([age, clients]) => ({ name: named(age), clients }));
}

function fillTable(node, item, isNamed) {
  const facts = [`${count(item.known)} known, room for ${count(item.entries_max)}`,
    item.displaced > 0 && `${count(item.displaced)} not where placement alone would send them`,
    item.hottest_sampled && "shares are estimated", !isNamed && "keys are hidden here (admin.clients)"];
  say(node.children[1], facts.filter(Boolean).join(" · "));
  const [known, hot] = node.querySelectorAll("tbody");
  keep(known, ages(item.known_by_age), (age) => age.name, row(AGE), (line, age) => {
    const [name, clients, share] = line.children;
    say(name, age.name);
    say(clients, count(age.clients));
    if (!share.firstChild) share.append(make("meter"));
    const meter = share.firstChild;
    meter.setAttribute("aria-label", `share of known clients, ${age.name}`);
    meter.value = item.known > 0 ? Math.min(1, age.clients / item.known) : 0;
  });
  known.parentNode.classList.toggle("empty", known.children.length === 0);
  // Without names all keys are alike, and only their places tell them apart.
  const keyed = item.hottest.map((key, place) => ({ place: String(place), ...key }));
  keep(hot, keyed, (key) => key.place, row(HOT), (line, key) => {
    const [name, share, backend] = line.children;
    say(name, key.key);
    say(share, percent(key.share) + (key.share_error > 0.0005 ? ` ± ${percent(key.share_error)}` : ""));
    say(backend, key.backend || "–");
  });
  hot.parentNode.classList.toggle("empty", keyed.length === 0);
}

// ---- The sample as a whole

function showNow(sample) {
  const rates = sample.per_s || {};
  const put = (id, text, more) => {
    const node = at(id);
    if (!node.querySelector("small")) node.replaceChildren(make("span"), make("small"));
    say(node.firstChild, text);
    say(node.lastChild, more ? ` ${more}` : "");
  };
  put("now-backends", count(sample.backends_serving), `of ${count(sample.backends)}`);
  put("now-open", count(sample.open), sample.max ? `of ${count(sample.max)}` : "");
  put("now-new", rate(rates.connections), rates.failures > 0 ? `${rate(rates.failures)} failed` : "");
  put("now-up", size(rates.bytes_up));
  put("now-down", size(rates.bytes_down));
  put("now-moved", count(sample.moved));
}

function showAttention(sample) {
  const backends = sample.pools.flatMap((pool) => pool.backends.map((backend) => ({ pool: pool.name, backend })));
  const troubled = backends.map(({ pool, backend }) => ({ name: `${pool}/${backend.name}`, backend, ...standing(backend) }))
    .filter((row) => row.mark !== "good").map(({ name, backend, words, since, mark: bad }) => {
      const long = lasting(since) ? ` for ${lasting(since)}` : "";
      const why = backend.complaint ? `: ${backend.complaint}` : "";
      return { key: `${name} is ${words}`, text: `${name} is ${words}${long}${why}`, mark: bad };
    });
  const warnings = sample.warnings.map((text) => ({ key: text, text, mark: "warn" }));
  const all = [...warnings, ...troubled];
  const shown = all.length > 0 ? all.slice(0, 20) : [{ key: "calm", text: "Nothing needs attention.", mark: "" }];
  if (all.length > 20) shown.push({ key: "more", text: `and ${all.length - 20} more, below`, mark: "warn" });
  keep(at("attention"), shown, (one) => one.key, () => make("li"), (node, one) => {
    say(node, one.text);
    mark(node, "data-mark", one.mark);
  });
  // Without durations, so that it is read out once.
  say(at("announce"), shown.map((one) => one.key === "calm" ? one.text : one.key).join(". "));
  return all.length;
}

function showEvents(events) {
  const list = at("event-list");
  const newest = [...events].reverse();
  // Each process numbers its events from the start.
  keep(list, newest, (event) => `${event.unix_ms} ${event.id}`, (event) => {
    const node = make("li");
    const time = make("time");
    time.dateTime = event.time;
    time.title = event.time;
    node.append(time, make("b", event.kind), make("span", event.text));
    return node;
  }, (node, event) => say(node.firstChild, clock(event.unix_ms)));
  at("no-events").hidden = newest.length > 0;
  // From here on new ones are read out.
  mark(list, "aria-live", "polite");
}

function showListenerChoice(listeners) {
  const choice = at("ask-listener");
  keep(choice, listeners, (listener) => listener.name, (listener) => make("option", listener.name), (node, listener) => {
    node.value = listener.name;
  });
}

function left(id, number, what) {
  at(id).hidden = !(number > 0);
  say(at(id), number > 0 ? `${count(number)} more ${what} are not shown. The JSON views have all.` : "");
}

let pid = null;

function show(sample) {
  if (sample.pid !== pid) risen.clear();
  pid = sample.pid;
  say(at("host"), location.host);
  say(at("process"), `version ${sample.version} · process ${sample.pid} · up for ${lasting(sample.uptime_s)} · ` +
    `configuration ${sample.generation}`);
  keep(at("pool-list"), sample.pools, (pool) => pool.name, bornPool, fillPool);
  keep(at("listener-rows"), sample.listeners, (listener) => listener.name, row(LISTENER), fillListener);
  showListenerChoice(sample.listeners);
  showNow(sample);
  showCounts(sample);
  keep(at("table-list"), sample.tables, (item) => item.name, bornTable, (node, item) => {
    fillTable(node, item, sample.names_clients);
  });
  at("no-tables").hidden = sample.tables.length > 0;
  left("left-out", sample.left_out, "backends");
  left("moves-left-out", sample.moves_left_out, "rows");
  left("faults-left-out", sample.faults_left_out, "rows");
  left("tables-left-out", sample.tables_left_out, "stick tables");
  showEvents(sample.events);
  const troubles = showAttention(sample);
  document.title = (troubles > 0 ? `(${troubles}) ` : "") + `sessile ${location.host}`;
}

// ---- The stream

let stream = null;
let tried = 0; // when the stream was last asked for, by the clock of the browser
let heard = 0; // when the last sample came
let lostAt = 0;
let lostWhy = "";
let version = null; // of the process that this page came from

const oldness = () => (heard ? ` What is shown is of ${clock(heard)}.` : "");

function linked(state, text) {
  mark(at("link"), "data-state", state);
  say(at("link"), text);
  document.body.classList.toggle("lost", state === "lost");
}

function lost(why) {
  if (!lostAt) lostAt = Date.now();
  lostWhy = why;
  linked("lost", `No connection since ${clock(lostAt)}: ${why}.${oldness()} Trying again …`);
  document.title = `✕ sessile ${location.host}`;
}

function connect() {
  if (stream) stream.close();
  tried = Date.now();
  stream = new EventSource("stream");
  stream.onmessage = (message) => hear(message.data);
  stream.onerror = () => {
    if (!lostAt) lost("the stream has ended");
    // The browser tries again by itself, unless it was refused.
    if (stream.readyState === EventSource.CLOSED) refused();
  };
}

function hear(data) {
  try {
    const sample = JSON.parse(data);
    version ??= sample.version;
    if (sample.version !== version) {
      // The files of this page are of another version.
      stream.close();
      location.reload();
      return;
    }
    show(sample);
  } catch (error) {
    console.error(error);
    lost("this page cannot read the sample; reload it");
    return;
  }
  if (lostAt) linked("live", `Live again since ${clock(Date.now())}`);
  else if (at("link").dataset.state !== "live") linked("live", "Live");
  [heard, lostAt] = [Date.now(), 0];
}

// A stream that was refused tells a script nothing; the same request without a body does.
async function refused() {
  try {
    const reply = await fetch("stream", { method: "HEAD", signal: AbortSignal.timeout(REPLY_MS) });
    if (reply.status === 503) lost("too many pages watch this process already; close one of them");
    else if (!reply.ok) lost(`the process replies with ${reply.status}`);
  } catch (error) {
    lost(error.name === "TimeoutError" ? LATE : "the process does not reply");
  }
}

setInterval(() => {
  if (document.hidden || Date.now() - Math.max(heard, tried) < SILENT_MS) return;
  lost(lostAt ? lostWhy : "no sample comes");
  connect();
}, 1000);

// A hidden page has no stream: a browser has only a few connections for all pages of a process together.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) return connect();
  if (stream) stream.close();
  lostAt = 0;
  linked("waiting", `Not live: this page was hidden.${oldness()}`);
  document.title = `sessile ${location.host}`;
});

// ---- Where does this client go, and why?

function because(report) {
  const reasons = {
    cookie: `its cookie names ${report.choice}`,
    stick_table: `the stick table has it at ${report.choice}`,
    connection: `its connection has a stream at ${report.choice}`,
    placement: `${report.balance} places its key there`,
    last_resort: "no other backend can serve: this is the last resort",
  };
  return reasons[report.reason] || report.reason;
}

// Where a client goes once its backend is down, too.
function afterwards(report) {
  if (!report.next) return "no backend is left";
  const serves = report.candidates.some((one) => one.backend === report.next && one.usable);
  return serves ? `it goes to ${report.next}` : `only ${report.next} is left, which cannot serve now`;
}

// What is said about a client: one sentence, and what follows from it.
function answered(report) {
  const pool = report.pool ? ` of pool ${report.pool}` : "";
  const more = [];
  let verdict;
  if (report.answer) {
    verdict = `Route ${report.route} answers the request of ${report.client}: ${report.answer}.`;
  } else if (report.refused) {
    verdict = `${report.client} is refused${report.pool ? ` in pool ${report.pool}` : ""}: ` +
      (REFUSALS[report.refused] || report.refused);
  } else if (report.any) {
    verdict = `${report.client} goes to any backend${pool} that can serve, because no key decides (${report.reason}).`;
    if (report.in_turn) more.push(`${report.in_turn} is next in turn, unless another client comes first.`);
  } else {
    verdict = `${report.client} goes to ${report.choice}${pool}, because ${because(report)}.`;
  }
  if (report.route && !report.answer) more.push(`Route ${report.route} of the listener decides.`);
  if (report.wait_ms > 0) more.push(`It waits up to ${report.wait_ms} ms for the backend that it has, before that.`);
  if (report.moved) {
    more.push(`It does not keep ${report.from || "its former backend"}: ${CAUSES[report.moved] || report.moved} (${report.moved}).`);
  }
  if (report.choice && !report.refused) more.push(`If ${report.choice} goes down, ${afterwards(report)}.`);
  if (report.key) more.push(`Key: ${report.key}.`);
  if (report.range) more.push(`Range: ${report.range}.`);
  if (report.entry) more.push(`Stick table: known at ${report.entry.backend || "a backend that was removed"}.`);
  if (report.cookie) more.push(`Its cookie is ${report.cookie}.`);
  return { verdict, more };
}

const CANDIDATE = [["Backend"], ["State"], ["Why not", "wide"]];

function showAnswer(report) {
  const { verdict, more } = answered(report);
  const list = make("ul");
  list.append(...more.map((text) => make("li", text)));
  const parts = [make("p", verdict, "verdict"), list];
  if (report.candidates && report.candidates.length > 0) {
    const node = table(CANDIDATE, "Backends in the order of preference");
    keep(node.querySelector("tbody"), report.candidates, (one) => one.backend, row(CANDIDATE), (line, one) => {
      const chosen = !report.refused && one.backend === report.choice;
      say(line.children[0], one.backend);
      say(line.children[1], one.state || (one.usable ? "usable" : "–"));
      say(line.children[2], chosen ? "goes here" : one.why_not || "–");
    });
    parts.push(node);
  }
  at("answer").classList.toggle("refused", Boolean(report.refused));
  at("answer").replaceChildren(...parts);
}

function showProblem(text) {
  at("answer").classList.add("refused");
  at("answer").replaceChildren(make("p", text, "verdict"));
}

at("ask-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = [...new FormData(event.target)].map(([name, value]) => [name, value.trim()]);
  try {
    const reply = await fetch("explain?" + new URLSearchParams(given.filter((pair) => pair[1] !== "")), {
      signal: AbortSignal.timeout(REPLY_MS),
    });
    if (reply.ok) showAnswer(await reply.json());
    else showProblem((await reply.text()).trim());
  } catch (error) {
    showProblem(error.name === "TimeoutError" ? `There is ${LATE}.` : "The process does not reply.");
  }
});

if (!document.hidden) connect();
