/* Pages and forms: each step replaces the previous one in the same document, so that the audio context keeps running
   and sounds that were fetched ahead stay available. An answer is kept here until the server acknowledges it. */
"use strict";

let step = null; // the current step, set by `show`
const UNSENT = "rootnote.unsent";
const KEYS = { x: "X", a: "A", b: "B", 1: "X", 2: "A", 3: "B" };

const refusedSounds = new Set(); // sounds of pages where the server refused one

/* Storage may be forbidden, above all in a frame; then everything works except what a reload would keep. */
const store = {
  get(area, key) {
    try { return window[area].getItem(key); } catch { return null; }
  },
  set(area, key, value) {
    try { value === null ? window[area].removeItem(key) : window[area].setItem(key, value); } catch { /* forbidden */ }
  },
};

function textOf(name, values = {}) {
  const text = document.querySelector("[data-words]").dataset[name];
  return text.replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

function showNotice(name, on = true) {
  document.querySelector(`[data-notice=${name}]`).hidden = !on;
}

/* ---------------------------------------------------------------- what a page shows */

function show() {
  const main = document.querySelector("main");
  const form = document.querySelector("form[data-send]");
  const boxes = [...document.querySelectorAll("[data-player]")];
  step = { main, form, boxes, deck: null, opened: performance.now(), losses: 0, away: false, sent: false };
  const players = boxes.map((box) => {
    const { clip } = box.querySelector("audio").dataset;
    return new Player(clip, box.querySelector("audio").getAttribute("src"));
  });
  step.deck = new Deck(players, main.dataset.switching || "restart", (ended) => changed(ended));
  boxes.forEach((box, index) => {
    box.querySelector(".play").addEventListener("click", () => toggle(players[index]));
  });
  if (form) {
    form.reset();
    form.addEventListener("submit", (event) => { event.preventDefault(); answer(); });
    form.addEventListener("change", update);
  }
  for (const once of document.querySelectorAll("form[data-once]")) sendOnce(once);
  showKeys();
  changed();
  loadAll();
}

function sendOnce(form) {
  let sent = false;
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
}

/* Load all sounds of the page in random order, so that requests reveal nothing; then those of the next page. */
async function loadAll() {
  const now = step;
  const { players } = now.deck;
  const ahead = (now.main.dataset.next || "").split(" ").filter(Boolean);
  keepSounds([...players.map((player) => player.address), ...ahead]);
  if (players.length && !canPlay()) return handleFailure(new PlayError("audio"));
  try {
    await Promise.all(shuffled(players).map(async (player) => {
      player.sound = await loadSound(player.address, (lost) => now === step && showNotice("loading", lost));
      if (now === step) changed();
    }));
  } catch (error) {
    if (now === step) handleFailure(error);
    return;
  }
  if (now !== step) return;
  now.main.dataset.ready = "";
  // One after the other, so that a slow connection has room for an answer; a failed one is loaded when it is due.
  for (const address of shuffled(ahead)) if (now === step) await loadSound(address).catch(() => {});
}

function shuffled(items) {
  const drawn = items.map((item) => [Math.random(), item]);
  return drawn.sort((one, other) => one[0] - other[0]).map((pair) => pair[1]);
}

async function handleFailure(error) {
  // A refused sound means that the page is no longer due; where it is refused again, it cannot be heard.
  const addresses = step.deck.players.map((player) => player.address);
  if (error instanceof GoneError && !addresses.some((address) => refusedSounds.has(address))) {
    for (const address of addresses) refusedSounds.add(address);
    return showCurrentPage();
  }
  if (!(error instanceof PlayError || error instanceof GoneError)) throw error;
  step.deck.stop();
  showNotice("problem");
}

function toggle(player) {
  if (!player.sound) return;
  if (player.run) step.deck.stop();
  else step.deck.play(player).catch(handleFailure);
}

/* A sound started or stopped: show it, and announce one that ended. */
function changed(ended) {
  const { deck, boxes } = step;
  for (const [index, box] of boxes.entries()) paint(box, deck.players[index]);
  if (deck.playing) follow(deck.playing.run);
  if (ended) announce(ended);
  update();
}

function paint(box, player) {
  const { name } = box.dataset;
  const button = box.querySelector(".play");
  const playing = Boolean(player.run);
  box.classList.toggle("playing", playing);
  box.classList.toggle("done", player.plays > 0);
  button.disabled = !player.sound;
  button.setAttribute("aria-label", textOf(playing ? "stop" : "play", { name }));
  box.querySelector("[data-heard]").textContent = textOf(stateOf(player));
  paintTime(box, player);
}

function stateOf(player) {
  if (!player.sound) return "loading";
  if (player.run) return "playing";
  if (player.plays) return "heard";
  return player.spans.length ? "partly" : "unheard";
}

function paintTime(box, player) {
  if (!player.sound) return;
  const { duration } = player;
  const at = player.run ? player.position() : 0;
  box.querySelector(".played").value = player.run ? at / duration : Number(player.plays > 0);
  const length = seconds(duration);
  const time = player.run ? textOf("position", { at: seconds(at), length }) : textOf("length", { length });
  box.querySelector("[data-time]").textContent = time;
  for (const part of document.querySelectorAll("[data-from]")) {
    part.classList.toggle("sounding", Boolean(player.run) && at >= part.dataset.from && at < part.dataset.to);
  }
  const meter = box.querySelector("meter");
  if (meter) meter.value = player.run ? speaker.level() : 0;
}

/* With the digits that the server uses on the rest of the page. */
function seconds(number) {
  return new Intl.NumberFormat(`${document.documentElement.lang}-u-nu-latn`, {
    minimumFractionDigits: 1, maximumFractionDigits: 1,
  }).format(number);
}

function list(names) {
  return new Intl.ListFormat(document.documentElement.lang, { style: "short", type: "unit" }).format(names);
}

/* Follow the playing sound until it ends. It is stopped when the system interrupts it, as a phone call does; a context
   that reports "running" while its clock stands still plays nothing. */
function follow(run, since = performance.now(), last = -1) {
  requestAnimationFrame(() => {
    const { deck, boxes } = step;
    const index = deck.players.findIndex((player) => player.run === run);
    if (index < 0) return;
    paintTime(boxes[index], deck.players[index]);
    const { currentTime, state } = speaker.context;
    if (state !== "running") deck.stop();
    else if (currentTime !== last) follow(run, performance.now(), currentTime);
    else if (performance.now() - since > STUCK_MS) handleFailure(new PlayError("silent"));
    else follow(run, since, last);
  });
}

function announce(player) {
  const name = step.boxes[step.deck.players.indexOf(player)].dataset.name;
  const left = step.deck.players.filter((each) => !each.plays).map((each) => each.clip);
  const text = textOf(player.plays ? "heardName" : "partlyName", { name });
  document.querySelector("[data-say]").textContent = left.length && step.deck.players.length > 1
    ? `${text} ${textOf("left", { names: list(left) })}` : text;
}

/* What is enabled now: choosing once everything was heard, continuing once everything is chosen. */
function update() {
  const { form, deck } = step;
  if (!form) return;
  const heard = deck.players.every((player) => player.plays > 0);
  for (const field of form.querySelectorAll("[data-after-hearing]")) field.disabled = !heard;
  const groups = new Set([...form.querySelectorAll("[data-after-hearing]")].map((field) => field.name));
  const chosen = [...groups].every((name) => form.querySelector(`[name="${name}"]:checked`));
  form.querySelector("[data-submit]").disabled = step.sent || !(heard && chosen);
  const hint = form.querySelector("[data-hint]");
  if (!hint) return;
  hint.dataset.first ??= hint.textContent;
  if (!heard) hint.textContent = hint.dataset.first;
  else hint.textContent = chosen ? "" : hint.dataset.then || "";
}

/* ---------------------------------------------------------------- answers */

function answer() {
  if (step.sent) return;
  step.deck.stop();
  step.sent = true;
  update();
  addTelemetry();
  const { form } = step;
  const unsent = { action: form.getAttribute("action"), body: String(new URLSearchParams(new FormData(form))) };
  store.set("localStorage", UNSENT, JSON.stringify(unsent));
  send(unsent);
}

/* Fill the form's hidden fields; what the browser does not know stays empty. */
function addTelemetry() {
  const { form, deck } = step;
  const { context } = speaker;
  const known = {
    response_ms: Math.round(performance.now() - step.opened),
    play_order: deck.order,
    focus_losses: step.losses,
    sample_rate: context ? context.sampleRate : "",
    output_latency_ms: context ? Math.round(1e4 * (context.outputLatency || context.baseLatency || 0)) / 10 : "",
  };
  for (const player of deck.players) {
    known[`plays_${player.clip.toLowerCase()}`] = player.plays;
    known[`seconds_${player.clip.toLowerCase()}`] = player.seconds.toFixed(3);
  }
  for (const [name, value] of Object.entries(known)) {
    if (form.elements[name] instanceof HTMLInputElement) form.elements[name].value = value;
  }
}

/* Send until it is acknowledged; sending twice is harmless, so a lost reply loses nothing. The reply is the next page:
   a page that is not the study's, such as a hotel's sign-in page, acknowledges nothing. */
async function send(unsent, leftOver = false) {
  for (let wait = 1000; ; wait = Math.min(wait * 2, 15000)) {
    const page = await request(unsent.action, { method: "POST", body: new URLSearchParams(unsent.body) });
    if (page) {
      store.set("localStorage", UNSENT, null);
      const refused = page.querySelector("main").dataset.step === "error";
      return leftOver && refused ? showCurrentPage() : replacePage(page);
    }
    showNotice("connection");
    await pause(wait);
  }
}

/* The study's page at an address, or null where it cannot be loaded now. */
async function request(address, options = {}) {
  try {
    const reply = await fetch(address, { credentials: "same-origin", ...options });
    if (reply.status >= 500 || reply.status === 429) return null;
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    return page.querySelector("main[data-step]") ? page : null;
  } catch {
    return null; // no connection
  }
}

/* Replace this page by another. One made for another version of this script is loaded by the browser instead. */
function replacePage(page) {
  const scripts = (where) => [...where.querySelectorAll("script[src]")].map((script) => script.getAttribute("src")).join();
  if (scripts(page) !== scripts(document)) return location.reload();
  for (const unused of page.querySelectorAll("noscript")) unused.remove();
  document.title = page.title;
  for (const name of ["lang", "dir"]) document.documentElement[name] = page.documentElement[name];
  document.body.replaceWith(document.adoptNode(page.body));
  window.scrollTo(0, 0);
  show();
  const first = document.querySelector("main [data-focus]") || document.querySelector("main h1") || step.main;
  first.tabIndex = -1;
  first.focus({ preventScroll: true });
}

/* Show the page that is due now, for example where a sound is gone because the place was given to another listener. */
async function showCurrentPage() {
  for (let wait = 1000; ; wait = Math.min(wait * 2, 15000)) {
    const page = await request(location.pathname);
    showNotice("connection", !page);
    if (page) return replacePage(page);
    await pause(wait);
  }
}

/* ---------------------------------------------------------------- keys and focus */

function keysAreOn() {
  return store.get("sessionStorage", "rootnote.keys") !== "off";
}

function showKeys() {
  const box = document.querySelector("[data-keys]");
  if (!box) return;
  box.checked = keysAreOn();
  box.addEventListener("change", () => store.set("sessionStorage", "rootnote.keys", box.checked ? "on" : "off"));
}

function onKey(event) {
  if (!step || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (!("trial" in (step.form || document.body).dataset) || !keysAreOn()) return;
  // Keyboards of other scripts have no X, A and B: use the keys in their positions, and the digits.
  const place = /^[\x20-\x7e]$/.test(event.key) ? event.key : event.code.replace(/^(Key|Digit|Numpad)/, "");
  const clip = KEYS[place.toLowerCase()];
  const player = clip && step.deck.players.find((each) => each.clip === clip);
  if (player) {
    event.preventDefault();
    toggle(player);
  } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    chooseByArrow(event);
  } else if (event.key === "Enter" && !event.target.closest("button, a, summary, input")) {
    event.preventDefault();
    const button = step.form.querySelector("[data-submit]:enabled");
    if (button) step.form.requestSubmit(button);
  }
}

function chooseByArrow(event) {
  // Within another question arrows are that question's.
  if (event.target.matches("input") && event.target.name !== "choice") return;
  const first = document.documentElement.dir === "rtl" ? "ArrowRight" : "ArrowLeft"; // A stands where a line begins
  const choice = step.form.querySelector(`input[name=choice][value=${event.key === first ? "A" : "B"}]`);
  if (choice.disabled) return;
  event.preventDefault();
  choice.checked = true;
  choice.focus();
  update();
}

function onFocus() {
  if (!step) return;
  const away = document.hidden || !document.hasFocus();
  if (away && !step.away) step.losses += 1;
  step.away = away;
}

document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", onFocus);
window.addEventListener("blur", onFocus);
window.addEventListener("focus", onFocus);

/* A page from the browser's cache may be out of date. */
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

/* A listener who goes back to the consent page can resume, and does not start a second time. */
function offerResume() {
  const main = document.querySelector("main");
  if (location.pathname.startsWith("/a/") && main.dataset.step !== "error") {
    store.set("sessionStorage", "rootnote.address", location.pathname.split("/").slice(0, 3).join("/"));
  } else if (main.dataset.step === "consent") {
    const address = store.get("sessionStorage", "rootnote.address");
    const [visit] = performance.getEntriesByType("navigation");
    if (address && visit && visit.type === "back_forward") location.replace(address);
    if (address) {
      document.querySelector("[data-resume-link]").href = address;
      document.querySelector("[data-resume]").hidden = false;
    }
  }
}

/* An answer that was unsent when the page was closed is sent first. */
function sendUnsent() {
  const unsent = JSON.parse(store.get("localStorage", UNSENT) || "null");
  if (!unsent || !unsent.action.startsWith(`${location.pathname}/`)) return;
  step.sent = true;
  update();
  send(unsent, true);
}

offerResume();
show();
sendUnsent();
