/* Players, and forms that lose no answer. "Heard" means played to the end: there is no way to seek. */
"use strict";

const main = document.querySelector("main");
const opened = performance.now();
const players = [...document.querySelectorAll("[data-player]")].map(makePlayer);

function makePlayer(box) {
  const audio = box.querySelector("audio");
  const button = box.querySelector(".play");
  const bar = box.querySelector(".played");
  const heard = box.querySelector("[data-heard]");
  const name = box.dataset.name;
  const player = { audio, plays: 0, stop, clip: audio.dataset.clip };

  function show(playing) {
    box.classList.toggle("playing", playing);
    button.setAttribute("aria-label", `${playing ? "Stop" : "Play"} ${name}`);
    if (playing) heard.textContent = "Playing…";
    else heard.textContent = player.plays ? "Heard" : "Not heard yet";
  }
  function stop() {
    audio.pause();
    audio.currentTime = 0;
    bar.value = player.plays ? 1 : 0;
    show(false);
  }
  function follow() {
    if (audio.paused) return;
    bar.value = audio.duration ? audio.currentTime / audio.duration : 0;
    requestAnimationFrame(follow);
  }
  button.addEventListener("click", () => {
    if (!audio.paused) return stop();
    players.forEach((other) => other !== player && other.stop());
    audio.currentTime = 0;
    audio.play().catch((error) => error.name !== "AbortError" && fail());
  });
  audio.addEventListener("playing", () => { show(true); follow(); });
  audio.addEventListener("ended", () => {
    player.plays += 1;
    box.classList.add("done");
    show(false);
    bar.value = 1;
    update();
  });
  audio.addEventListener("error", fail);
  function fail() {
    show(false);
    document.querySelector("[data-problem]").hidden = false;
  }
  return player;
}

/* All sounds are loaded ahead, in an order drawn anew for every page, so that requests say nothing. */
function load() {
  for (let i = players.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [players[i], players[j]] = [players[j], players[i]];
  }
  for (const player of players) {
    player.audio.preload = "auto";
    player.audio.load();
  }
}

const form = document.querySelector("form[data-send]");

function update() {
  if (!form) return;
  const heard = players.every((player) => player.plays > 0);
  const choices = [...form.querySelectorAll("input[name=choice]")];
  choices.forEach((choice) => { choice.disabled = !heard; });
  for (const player of players) {
    const field = form.elements[`plays_${player.clip.toLowerCase()}`];
    if (field) field.value = player.plays;
  }
  const chosen = !choices.length || choices.some((choice) => choice.checked);
  form.querySelector("[data-submit]").disabled = !(heard && chosen);
  const hint = form.querySelector("[data-hint]");
  if (hint && heard) hint.textContent = chosen ? "" : "Now choose A or B. You can listen again as often as you like.";
}

/* An answer is sent until it is acknowledged; sending it twice is harmless, so a lost reply is no loss. */
async function send() {
  const button = form.querySelector("[data-submit]");
  const lost = document.querySelector("[data-connection]");
  const body = new URLSearchParams(new FormData(form));
  button.disabled = true;
  for (let wait = 1000; ; wait = Math.min(wait * 2, 15000)) {
    let reply = null;
    try {
      reply = await fetch(form.action, { method: "POST", body, redirect: "manual" });
    } catch { /* no connection: try again below */ }
    if (reply && (reply.type === "opaqueredirect" || reply.ok)) return location.replace(form.dataset.send);
    if (reply && reply.status >= 400 && reply.status < 500) return HTMLFormElement.prototype.submit.call(form);
    lost.hidden = false;
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

if (form) {
  let sent = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (sent) return;
    sent = true;
    players.forEach((player) => player.stop());
    const field = form.elements.response_ms;
    if (field) field.value = Math.round(performance.now() - opened);
    send();
  });
  form.addEventListener("change", update);
  form.reset();
  update();
}

for (const once of document.querySelectorAll("form[data-once]")) {
  let sent = false;
  once.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
}

/* Someone who goes back to the consent page is led on to where they were, and does not begin a second time. */
try {
  if (location.pathname.startsWith("/a/") && main.dataset.step !== "error") {
    sessionStorage.setItem("rootnote.address", location.pathname.split("/").slice(0, 3).join("/"));
  } else if (main.dataset.step === "consent") {
    const address = sessionStorage.getItem("rootnote.address");
    const [visit] = performance.getEntriesByType("navigation");
    if (address && visit && visit.type === "back_forward") location.replace(address);
    if (address) {
      document.querySelector("[data-resume-link]").href = address;
      document.querySelector("[data-resume]").hidden = false;
    }
  }
} catch { /* no storage: nothing to lead back to */ }

/* A page that the browser kept may be behind the server. */
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

load();
