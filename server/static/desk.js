/* Live parts: fetch this page again every ten seconds and put its [data-live] parts in place; all else is the server's. */
"use strict";

const EVERY = 10000;
const box = document.querySelector("[data-refreshing]");
const pause = document.querySelector("[data-pause]");
let paused = false;

async function refresh() {
  if (paused || document.hidden) return;
  let reply = null;
  try {
    reply = await fetch(location.href, { headers: { "Rootnote-Live": "1" }, cache: "no-store" });
  } catch { return; /* no connection: the next time perhaps */ }
  if (reply.redirected) return location.reload(); /* signed out: the page says so */
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
    pause.textContent = paused ? "Go on" : "Pause";
  });
  setInterval(refresh, EVERY);
}
