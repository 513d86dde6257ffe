// What leaves and comes, as a chart over the last minutes: real and cover bytes stacked, received ones as a line.
import { at, el, many, rate, say, span, svg } from "/dashboard/parts.js";

const WINDOW_S = 300;
const HEIGHT = 190;
const LEFT = 58;
const BOTTOM = 22;
const LAYERS = ["real", "cover", "rest"];
const samples = [];
let before = null;

// Received bytes are those of the links that stand: the growth of each, so that an ended link takes nothing away.
function growth(links) {
  let sum = 0;
  for (const link of links) {
    const known = before.received.get(link.peer);
    sum += known === undefined ? 0 : Math.max(0, link.wire_bytes_received - known);
  }
  return sum;
}

export function sample(status, links) {
  const now = performance.now() / 1000;
  const cover = status.padding_bytes_sent + status.dummy_bytes_sent;
  const found = { now, wire: status.wire_bytes_sent, real: status.real_bytes_sent, cover, uptime: status.uptime_s };
  found.received = new Map(links.map((link) => [link.peer, link.wire_bytes_received]));
  if (before && found.uptime < before.uptime) forget(); // another run of the node
  if (before && now - before.now > 0.5) {
    const seconds = now - before.now;
    const real = Math.max(0, found.real - before.real) / seconds;
    const hidden = Math.max(0, found.cover - before.cover) / seconds;
    const rest = Math.max(0, (found.wire - before.wire) / seconds - real - hidden);
    samples.push({ now, real, cover: hidden, rest, received: growth(links) / seconds });
    while (samples.length && now - samples[0].now > WINDOW_S) samples.shift();
  }
  if (!before || now - before.now > 0.5) before = found;
  draw();
}

export function forget() {
  before = null;
  samples.length = 0;
}

export const latest = () => samples.at(-1) ?? null;

function ceiling(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 100)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= most) ?? 10 * power;
}

function draw() {
  const place = at("chart");
  say(at("traffic-empty"), samples.length < 2 ? "Measuring… the picture begins with the second measurement." : "");
  if (samples.length < 2) return place.replaceChildren();
  const width = Math.max(280, place.clientWidth);
  const end = samples.at(-1).now;
  const top = ceiling(Math.max(...samples.map((s) => Math.max(s.real + s.cover + s.rest, s.received))));
  const x = (s) => LEFT + (width - LEFT - 4) * (1 - (end - s.now) / WINDOW_S);
  const y = (value) => 8 + (HEIGHT - BOTTOM - 8) * (1 - value / top);
  const point = (s, value) => `${x(s).toFixed(1)},${y(value).toFixed(1)}`;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, width, "aria-hidden": "true" });
  for (const part of [0, 0.5, 1]) {
    picture.append(svg("line", { class: "grid", x1: LEFT, x2: width - 4, y1: y(top * part), y2: y(top * part) }));
    picture.append(svg("text", { x: LEFT - 6, y: y(top * part) + 4, "text-anchor": "end" }, rate(top * part)));
  }
  const floor = samples.map(() => 0);
  for (const layer of LAYERS) {
    const under = samples.map((s, i) => point(s, floor[i])).reverse();
    const over = samples.map((s, i) => point(s, (floor[i] += s[layer])));
    picture.append(svg("path", { class: `area ${layer}`, d: `M${over.join("L")}L${under.join("L")}Z` }));
  }
  picture.append(svg("path", { class: "line received", d: `M${samples.map((s) => point(s, s.received)).join("L")}` }));
  picture.append(svg("text", { x: LEFT, y: HEIGHT - 5 }, `${span(WINDOW_S)} ago`));
  picture.append(svg("text", { x: width - 4, y: HEIGHT - 5, "text-anchor": "end" }, "now"));
  place.replaceChildren(picture);
  legend();
}

function legend() {
  const now = mean(samples.slice(-5));
  const words = {
    real: "real, sent",
    cover: "cover, sent (padding and dummies)",
    rest: "seals and carriers, sent",
    received: "received, all",
  };
  const list = at("traffic-legend");
  if (!list.children.length) {
    for (const name of [...LAYERS, "received"]) {
      list.append(el("li", {}, el("span", { class: `key ${name}` }), el("b"), ` ${words[name]}`));
    }
  }
  [...LAYERS, "received"].forEach((name, i) => say(list.children[i].querySelector("b"), rate(now[name])));
  const spoken = [...LAYERS, "received"].map((name) => `${words[name]} ${rate(now[name])}`).join("; ");
  at("chart").setAttribute("aria-label", `Traffic now: ${spoken}. ${many(samples.length, "measurement")} shown.`);
}

export function mean(some) {
  const sum = { real: 0, cover: 0, rest: 0, received: 0 };
  for (const each of some) for (const name of Object.keys(sum)) sum[name] += each[name] / some.length;
  return sum;
}

export const recent = () => (samples.length ? mean(samples.slice(-30)) : null);
addEventListener("resize", () => samples.length > 1 && draw());
