// Elements, numbers and words. Whatever comes from the node enters the page as text, here and nowhere else.
const SVG = "http://www.w3.org/2000/svg";

function filled(made, attributes, inside) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...inside.map((part) => (part instanceof Node ? part : document.createTextNode(printable(part)))));
  return made;
}

export const el = (name, attributes = {}, ...inside) => filled(document.createElement(name), attributes, inside);
export const svg = (name, attributes = {}, ...inside) => filled(document.createElementNS(SVG, name), attributes, inside);
export const at = (id) => document.getElementById(id);

// Control characters, marks that turn the direction of writing, and the like as codes; never longer than `most`.
export function printable(text, most = 400) {
  const shown = String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
  return shown.length > most ? `${shown.slice(0, most - 1)}…` : shown;
}

export function say(element, text) {
  const shown = printable(text);
  if (element.textContent !== shown) element.textContent = shown;
}

export function bytes(count) {
  let size = Math.max(0, count);
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (size < 999.5) return `${size < 9.95 && unit !== "B" ? size.toFixed(1) : Math.round(size)} ${unit}`;
    size /= 1000;
  }
  return `${size.toFixed(1)} TB`;
}

export const rate = (count) => `${bytes(count)}/s`;

export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export const clock = (date) => date.toLocaleTimeString([], { hour12: false });
export const short = (id) => `${String(id).slice(0, 12)}…`;
export const many = (count, one, more = `${one}s`) => `${count} ${count === 1 ? one : more}`;

// Rows of a definition list, changed in place so that a reader does not lose the place.
export function facts(list, rows) {
  rows.forEach(([name, value], index) => {
    let row = list.children[index];
    if (!row) list.append((row = el("div", {}, el("dt"), el("dd"))));
    say(row.firstChild, name);
    say(row.lastChild, value);
  });
  while (list.children.length > rows.length) list.lastChild.remove();
}
