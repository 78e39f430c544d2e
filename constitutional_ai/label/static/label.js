"use strict";
// Three things that plain HTML cannot do: show replies as they grow, choose by a key, and keep a text that is not sent.
// Text of models is only ever assigned to textContent.

const memory = {
  get(name) { try { return localStorage.getItem(name); } catch { return null; } },
  set(name, value) { try { localStorage.setItem(name, value); } catch { /* private windows keep nothing */ } },
  drop(name) { try { localStorage.removeItem(name); } catch { /* see above */ } },
  names() { try { return Object.keys(localStorage); } catch { return []; } },
};

function follow(pair) {
  const source = new EventSource(pair.dataset.stream);
  source.onmessage = (event) => {
    const shown = JSON.parse(event.data);
    for (const place of ["first", "second"]) {
      const text = pair.querySelector(`[data-place=${place}]`);
      if (text.textContent !== shown[place]) text.textContent = shown[place];
    }
    if (shown.state === "whole") finish("Both replies are there.", false);
    if (shown.state === "failed") finish("A model gave no reply.", true);
  };
  // The browser connects again by itself, and the server then goes on.
  source.onerror = () => say("Waiting for the server.");
  source.onopen = () => say("The replies are being written.");
  function finish(words, failed) {
    source.close();
    pair.querySelectorAll("[aria-busy]").forEach((article) => article.removeAttribute("aria-busy"));
    document.getElementById("choices").disabled = failed;
    document.getElementById("again").hidden = !failed;
    say(words);
  }
}

function say(words) {
  document.getElementById("status").textContent = words;
}

// A text is kept until its page is followed by another on which one writes or chooses: then it has reached the server.
const mine = `draft/${document.body.dataset.person}/`;

function keepDraft(area) {
  const name = mine + area.dataset.draft;
  const kept = memory.get(name);
  if (kept !== null) area.value = kept;
  area.addEventListener("input", () => memory.set(name, area.value));
  area.addEventListener("keydown", (event) => {
    const alone = !area.form.querySelector("[data-key]");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && alone) area.form.requestSubmit();
  });
}

function dropOtherDrafts(areas) {
  const here = areas.map((area) => mine + area.dataset.draft);
  memory.names().filter((name) => name.startsWith(mine) && !here.includes(name)).forEach(memory.drop);
}

function chooseByKey(event) {
  const box = document.getElementById("keys");
  const busy = event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing;
  if (busy || !box || !box.checked || event.target.closest("textarea")) return;
  const button = [...document.querySelectorAll("button[data-key]")].find((one) => one.dataset.key === event.key);
  if (button && !button.matches(":disabled")) button.click();
}

// A second press of a button must not send a form twice.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});
addEventListener("pageshow", () => document.querySelectorAll("form").forEach((form) => delete form.dataset.sent));
document.addEventListener("keydown", chooseByKey);
document.querySelectorAll("[data-stream]").forEach(follow);
const areas = [...document.querySelectorAll("[data-draft]")];
areas.forEach(keepDraft);
if (areas.length || document.getElementById("choices")) dropOtherDrafts(areas);
const keys = document.getElementById("keys");
if (keys) {
  keys.checked = memory.get("keys") !== "off";
  keys.addEventListener("change", () => memory.set("keys", keys.checked ? "on" : "off"));
}
