/* Fetch this page again every ten seconds and replace its [data-live] parts; the server renders everything. */
"use strict";

const INTERVAL_MS = 10000;
const box = document.querySelector("[data-refreshing]");
const pause = document.querySelector("[data-pause]");
let paused = false;

async function refresh() {
  if (paused || document.hidden) return;
  let reply = null;
  try {
    reply = await fetch(location.href, { headers: { "Rootnote-Live": "1" }, cache: "no-store" });
  } catch { return; /* no connection: try again at the next interval */ }
  if (reply.redirected) return location.reload(); /* signed out: show the sign-in page */
  if (!reply.ok) return;
  const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live][id]")) {
    const other = fresh.getElementById(part.id);
    const busy = part.contains(document.activeElement) || part.querySelector("details[open]");
    if (!other || busy || part.innerHTML === other.innerHTML) continue;
    part.replaceChildren(...other.cloneNode(true).childNodes);
    if (other.hasAttribute("datetime")) part.setAttribute("datetime", other.getAttribute("datetime"));
  }
}

if (box && document.querySelector("main [data-live]")) {
  box.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume" : "Pause";
  });
  setInterval(refresh, INTERVAL_MS);
}
