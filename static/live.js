// A push only says that something has changed: the part of the page asks for itself again, and the answer is the truth.
// Where no push comes, a part asks each `data-every` seconds; while push lives, seldom, for what it may have missed.
const RARELY = 20;
// Milliseconds. Two beats of the server and some: then the connection is dead, whatever the browser believes.
const SILENCE = 12_000;
// A list, of which anything may have changed, is not asked for more often than this.
const REST = 1000;

const address = document.querySelector("meta[name=live-url]")?.content;
const parts = () => [...document.querySelectorAll("[data-live]")];
const everyOf = (part) => Number(part.dataset.every);

// Longer after each failure, and not all pages at once when the server is back.
const pauseAfter = (failures) => Math.min(2 ** (failures - 1), 32) * 1000 * (0.5 + Math.random());

// --- Asking: one request of each part at a time, and one more for all news that came meanwhile ---

const askedAt = new Map();
const busy = new Set();
const wanted = new Set();

function ask(part) {
  // Rows must not move under a person who is choosing some of them.
  if (part.querySelector("input[type=checkbox]:checked")) return;
  const wait = everyOf(part) < RARELY ? 0 : (askedAt.get(part.id) ?? 0) + REST - Date.now();
  if (busy.has(part.id) || wait > 0) {
    if (!wanted.has(part.id)) setTimeout(askForWanted, Math.max(wait, 0), part.id);
    wanted.add(part.id);
    return;
  }
  askedAt.set(part.id, Date.now());
  htmx.trigger(part, "ask");
}

function askForWanted(id) {
  if (busy.has(id)) return;
  const part = document.getElementById(id);
  if (wanted.delete(id) && part) ask(part);
}

// The last tick was taken away: what came meanwhile is asked for now.
document.addEventListener("change", ({ target }) => {
  const part = target.closest("[data-live]");
  if (part && target.type === "checkbox") ask(part);
});

let unanswered = 0;

document.addEventListener("htmx:beforeRequest", ({ detail }) => {
  if (detail.target.dataset.live) busy.add(detail.target.id);
});

document.addEventListener("htmx:afterRequest", ({ detail }) => {
  const { id } = detail.target;
  if (!busy.delete(id)) return;
  // Neither our network nor a server in trouble has an answer; what is forbidden or gone is one.
  const isLost = detail.xhr.status === 0 || detail.xhr.status >= 500;
  unanswered = isLost ? unanswered + 1 : 0;
  const place = document.getElementById("connection");
  // Once is a hiccup.
  place.textContent = unanswered > 1 ? place.dataset.lost : "";
  if (isLost) wanted.add(id);
  setTimeout(askForWanted, isLost ? pauseAfter(unanswered) : 0, id);
});

// --- The connection ---

let source = null;
let openedAt = 0;
let heardAt = 0;
let wasLive = false;
let failures = 0;
let retryAt = 0;

function open() {
  const listening = parts();
  if (!address || document.hidden || !listening.length) return;
  const ids = listening.map((part) => part.id);
  openedAt = Date.now();
  source = new EventSource(`${address}?${new URLSearchParams(listening.map((part) => ["t", part.dataset.live]))}`);
  source.addEventListener("error", lose);
  source.addEventListener("beat", hear);
  source.addEventListener("message", ({ data }) => {
    hear();
    for (const place of data.split(" ")) {
      const part = document.getElementById(ids[place]);
      if (part) ask(part);
    }
  });
}

function hear() {
  const isFirst = !heardAt;
  heardAt = Date.now();
  if (!isFirst) return;
  document.documentElement.dataset.push = "live";
  // What happened before this connection; a list that has just been loaded is new enough.
  for (const part of parts()) if (wasLive || (everyOf(part) && everyOf(part) < RARELY)) ask(part);
  [wasLive, failures] = [true, 0];
}

function close() {
  source?.close();
  [source, heardAt] = [null, 0];
}

function lose() {
  // Refused, perhaps since the tokens are too old; who asks gets new ones, and the others ask anyway.
  if (!heardAt) for (const part of parts()) if (!everyOf(part)) ask(part);
  close();
  document.documentElement.dataset.push = "lost";
  failures += 1;
  retryAt = Date.now() + pauseAfter(failures);
}

function tick() {
  if (document.hidden) return;
  const now = Date.now();
  if (source && now - Math.max(heardAt, openedAt) > SILENCE) lose();
  if (!source && now >= retryAt) open();
  for (const part of parts()) {
    const every = everyOf(part);
    const pause = heardAt ? Math.max(every, RARELY) : every;
    if (!askedAt.has(part.id)) askedAt.set(part.id, now);
    if (every && now - askedAt.get(part.id) >= pause * 1000) ask(part);
  }
}

// Browsers open few connections to a server: a page that nobody sees keeps none of them.
document.addEventListener("visibilitychange", () => {
  close();
  retryAt = 0;
});
// A page that the browser keeps for its button *back* has none.
window.addEventListener("pagehide", close);

open();
setInterval(tick, 250);
