"use strict";
// Small helpers. All text goes through text nodes: nothing of the data is ever read as HTML.

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}
const element = (name, attributes = {}, ...children) =>
  build(document.createElement(name), attributes, children);
const shape = (name, attributes = {}, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
const find = (id) => document.getElementById(id);

/** A number as people read it; whole numbers only where all of the column are. */
function show(value, whole = Number.isInteger(value)) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "string") return value;
  if (whole) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size < 10 ? value.toFixed(3) : size < 1000 ? value.toFixed(1) : Math.round(value).toLocaleString("en");
}

/** The q-th quantile (0 to 1) of numbers, interpolated. */
function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = q * (sorted.length - 1), low = Math.floor(at);
  return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const isNumber = (value) => typeof value === "number";

/** Names in the order people expect: benign, malignant, normal, then the others. */
const collator = new Intl.Collator("en", { numeric: true });
function ordered(names) {
  const known = ["benign", "malignant", "normal", "unknown"];
  const place = (name) => (known.includes(name) ? known.indexOf(name) : known.length);
  return [...names].sort((a, b) => place(a) - place(b) || collator.compare(a, b));
}

/** Data URIs of a case's pictures by kind, read when first needed; {} where there are none. */
const pictureCache = new Map();
function pictures(index) {
  if (!pictureCache.has(index)) {
    const node = find(`pictures-${index}`);
    const texts = node ? JSON.parse(node.textContent) : {};
    for (const [kind, text] of Object.entries(texts)) texts[kind] = `data:image/jpeg;base64,${text}`;
    pictureCache.set(index, texts);
  }
  return pictureCache.get(index);
}

/** An <img> of a case, or a placeholder. */
function picture(item, pane, attributes = {}) {
  const source = pictures(item.index)[pane.kind];
  if (!source) return element("div", { class: "absent" }, "no picture");
  return element("img", { src: source, alt: `${pane.label} of ${item.id}`, decoding: "async", ...attributes });
}

function startTheme() {
  const button = find("theme"), themes = ["system", "light", "dark"];
  const set = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    button.value = theme;
  };
  let kept = null;
  try { kept = localStorage.getItem("anatosegnet-theme"); } catch { /* a file without storage */ }
  set(themes.includes(kept) ? kept : "system");
  button.hidden = false;
  button.addEventListener("click", () => {
    set(themes[(themes.indexOf(button.value) + 1) % themes.length]);
    try { localStorage.setItem("anatosegnet-theme", button.value); } catch { /* not kept */ }
  });
}

/** A small window beside the pointer that tells about a case. */
const tip = {
  show(item, lines, pane, x, y) {
    const box = find("tip");
    const image = pane && pictures(item.index)[pane.kind] ? [picture(item, pane)] : [];
    box.replaceChildren(element("strong", {}, item.id), ...lines.map((line) => element("div", {}, line)), ...image);
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${Math.max(4, x + 16 + width > innerWidth ? x - width - 12 : x + 16)}px`;
    box.style.top = `${Math.max(4, Math.min(y + 12, innerHeight - height - 8))}px`;
  },
  hide() { find("tip").hidden = true; },
};
