// Peers: how many by network, carrier and slot as bars, and each of them as a row.
import { at, bytes, el, many, printable, say, span } from "/dashboard/parts.js";

const SLOTS = ["full", "blocks", "feeler", "manual", "inbound"];
const WORDS = { full: "full", blocks: "blocks only", feeler: "feeler", manual: "asked for", inbound: "inbound" };
const rows = new Map();

export const slot = (peer) => (peer.manual ? "manual" : peer.inbound ? "inbound" : peer.purpose);

const COLUMNS = [
  (p) => p.peer,
  (p) => String(p.address).split("@").pop() || "–", // without its key
  (p) => p.face,
  (p) => p.carrier,
  (p) => WORDS[slot(p)] ?? slot(p),
  (p) => p.user_agent,
  (p) => span(p.connected_s),
  (p) => (p.best_ping_ms === null || p.best_ping_ms === undefined ? "–" : `${Math.round(p.best_ping_ms)} ms`),
  (p) => bytes(p.wire_bytes_sent),
  (p) => bytes(p.wire_bytes_received),
];
const NAMES = [...document.querySelectorAll("#peer-table th")].map((head) => head.textContent);

export function show(peers) {
  say(at("peers-empty"), peers.length ? "" : "No peers yet. The node looks for some; `obscura connect ADDRESS` makes a link.");
  at("peer-scroll").hidden = !peers.length;
  bars(peers);
  table(peers);
}

function bars(peers) {
  const groups = new Map();
  for (const peer of peers) {
    const name = `${peer.face} · ${peer.carrier}`;
    const group = groups.get(name) ?? groups.set(name, {}).get(name);
    group[slot(peer)] = (group[slot(peer)] ?? 0) + 1;
  }
  const sums = [...groups].map(([name, group]) => [name, group, Object.values(group).reduce((a, b) => a + b)]);
  sums.sort((a, b) => b[2] - a[2]);
  const most = Math.max(1, ...sums.map(([, , sum]) => sum));
  const lines = sums.map(([name, group, sum]) => {
    const known = Object.keys(group).sort((a, b) => SLOTS.indexOf(a) - SLOTS.indexOf(b));
    const bar = el("span", { class: "bar", "aria-hidden": "true" });
    for (const each of known) {
      const piece = el("i", { class: SLOTS.includes(each) ? `slot ${each}` : "slot" });
      piece.style.width = `${(100 * group[each]) / most}%`;
      bar.append(piece);
    }
    const told = known.map((each) => {
      const key = el("i", { class: SLOTS.includes(each) ? `key slot ${each}` : "key slot", "aria-hidden": "true" });
      return el("span", {}, key, `${group[each]} ${WORDS[each] ?? each} `);
    });
    return el("li", {}, el("span", { class: "name" }, name), bar, el("span", { class: "told" }, `${many(sum, "peer")}: `, ...told));
  });
  at("peer-bars").replaceChildren(...lines);
}

function table(peers) {
  const body = at("peer-table").tBodies[0];
  const there = new Set(peers.map((peer) => peer.peer));
  for (const [number, row] of rows) {
    if (!there.has(number)) {
      row.remove();
      rows.delete(number);
    }
  }
  for (const peer of peers) {
    let row = rows.get(peer.peer);
    if (!row) {
      row = el("tr", {}, ...COLUMNS.map((_, i) => (i ? el("td", { "data-name": NAMES[i] }, el("bdi")) : el("th", { scope: "row" }, el("bdi")))));
      rows.set(peer.peer, row);
      body.append(row);
    }
    COLUMNS.forEach((column, i) => say(row.cells[i].firstChild, printable(column(peer), 90)));
  }
}
