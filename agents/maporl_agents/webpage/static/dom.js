"use strict";
// Making elements. Texts only ever become text nodes; nothing is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) element.append(child);
  }
  return element;
}

const el = (tag, attributes, ...children) =>
  fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

const show = (element, ...children) => element.replaceChildren(...children.flat());

const percent = (x, digits = 1) => `${(100 * x).toFixed(digits)} %`;
const points = (x) => `${x < 0 ? "−" : "+"}${Math.abs(100 * x).toFixed(1)}`;
const whole = (x) => Math.round(x).toLocaleString("en-US");
const spread = (estimate) => (estimate.half === null ? "" : ` ± ${(100 * estimate.half).toFixed(1)}`);
const inPercent = (x) => (100 * x).toFixed(1);
const accuracy = (estimate) => (estimate ? (100 * estimate.mean).toFixed(1) + spread(estimate) : "–");

// An estimate in a cell of a table: the mean, and below it the half width of its interval.
const figure = (mean, half) => el("span", {}, mean, half === null ? null : el("small", {}, `± ${inPercent(half)}`));
const score = (estimate) => (estimate ? figure(inPercent(estimate.mean), estimate.half) : "");

// Buttons of which one is pressed.
function choice(label, options, chosen, onchange) {
  const buttons = options.map(([value, text]) =>
    el("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => press(value) }, text));
  function press(value) {
    options.forEach(([other], i) => buttons[i].setAttribute("aria-pressed", String(other === value)));
    onchange(value);
  }
  return el("div", { class: "switch", role: "group", "aria-label": label }, buttons);
}

function pick(label, options, onchange) {
  return el("select", { "aria-label": label, onchange: (event) => onchange(event.target.value) },
    options.map(([value, text]) => el("option", { value }, text)));
}

// A table: head is a list of texts, rows are lists of cells; the first cell heads its row.
function table(caption, head, rows, kind) {
  const cell = (content, i) => i === 0
    ? el("th", { scope: "row" }, content)
    : el("td", { "data-label": head[i], class: content === "" ? "empty" : null }, content);
  return el("div", { class: "scroll", tabindex: kind === "stack" ? null : "0", role: kind === "stack" ? null : "region", "aria-label": kind === "stack" ? null : caption },
    el("table", { class: kind },
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, head.map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell))))));
}
