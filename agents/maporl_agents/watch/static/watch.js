"use strict";
// Keeps the page up to date and gives it keys. The page works without: forms and links do the rest.

const TYPING = "input:not([type=hidden]), textarea:not([readonly])";
let version = Number(document.body.dataset.version);

// Whether somebody has typed something that a new page would lose.
function typed() {
  return [...document.querySelectorAll(TYPING)].some((field) =>
    field.name !== "who" && field.value !== field.defaultValue);
}

async function renew() {
  const answer = await fetch(location.pathname + location.search, { cache: "no-store" });
  if (!answer.ok) throw new Error(answer.status);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (typed()) return tell("The debate has gone on; what you are writing is kept. Load the page again to see it.");
  const name = document.querySelector("input[name=who]")?.value;
  const opened = [...document.querySelectorAll("details[data-key][open]")].map((one) => one.dataset.key);
  const focused = document.activeElement?.closest?.("main") ? null : document.activeElement;
  document.title = fresh.title;
  document.getElementById("main").replaceWith(fresh.getElementById("main"));
  if (name) document.querySelectorAll("input[name=who]").forEach((field) => { field.value = name; });
  if (!opened.length) document.getElementById("now")?.scrollIntoView({ block: "nearest" });
  focused?.focus?.();
}

function tell(words) {
  const news = document.getElementById("news");
  news.textContent = words;
  news.hidden = false;
}

async function follow() {
  for (;;) {
    try {
      const answer = await fetch(`version?after=${version}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const now = (await answer.json()).version;
      if (now !== version) {
        version = now;
        await renew();
      }
    } catch {
      tell("The server does not answer. Nothing is lost: maporl watch --resume goes on with this debate.");
      await new Promise((go) => setTimeout(go, 2000));
    }
  }
}

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const part = document.querySelector(`form.decide [data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!part) return;
  event.preventDefault();
  if (part.tagName === "BUTTON") return part.click();
  part.open = true;
  part.querySelector("textarea").focus();
});

follow();
