// The life of own transactions: sent from here or followed by their ids, drawn as they go, every step also as text.
import { at, clock, el, many, say, short, svg } from "/dashboard/parts.js";
import { Gone, Refused, call } from "/dashboard/rpc.js";

const WAIT_MS = 30_000; // the node answers after some seconds when nothing happens
const STATIONS = ["queued", "stem", "public", "seen"];
const TITLES = { queued: "on disk", stem: "stem", public: "diffused", seen: "seen" };
const X = [40, 145, 255, 405];
const Y = 62;
const lives = new Map();

const TOLD = {
  queued: (r, policy) => `kept on the disk${policy === "direct" ? "" : ", waits for a way that hides where it comes from"}`,
  stemmed: () => "handed to one peer: it walks the stem, and an embargo clock runs here",
  "re-stemmed": () => "the embargo was over and nobody had shown it: sent along another stem",
  diffused: (r, policy) =>
    policy === "direct" ? "given to all peers by this node: whoever watches it can see that" : "public: nodes give it to all their peers",
  seen: (r) => (r.peers ? `told back or fetched by ${many(r.peers, "peer")}` : "whoever was told had it already"),
  unprotected: () => "nobody would take it on a stem in time: this node diffused it itself, and whoever watched could see that",
  expired: () => "given up: this policy never diffuses by itself",
};

// Browsers hold few connections to one place, and each question waits for seconds: some at a time, lest nothing else passes.
const AT_ONCE = 2;
const waiting = [];
let asking = 0;

async function inTurn(ask) {
  while (asking >= AT_ONCE) await new Promise((go) => waiting.push(go));
  asking++;
  try {
    return await ask();
  } finally {
    asking--;
    waiting.shift()?.();
  }
}

export function start() {
  at("send").addEventListener("submit", (event) => {
    event.preventDefault();
    send(new FormData(at("send")));
  });
  at("follow").addEventListener("submit", (event) => {
    event.preventDefault();
    follow(at("tx-id").value.trim().toLowerCase(), "as sent");
    at("tx-id").value = "";
  });
}

async function send(form) {
  const raw = form.get("raw").replace(/\s+/g, "");
  const policy = form.get("policy");
  const button = at("send").querySelector("button");
  button.disabled = true;
  say(at("send-told"), "Sending…");
  try {
    const { id } = await call("tx.send", { raw, policy });
    say(at("send-told"), `Taken: ${id}`);
    at("raw").value = "";
    if (policy === "direct") at("send").reset(); // the one that shows where it comes from is chosen each time
    follow(id, policy);
  } catch (fault) {
    say(at("send-told"), `Not sent: ${fault.message}.`);
  } finally {
    button.disabled = false;
  }
}

async function follow(id, policy) {
  lives.get(id)?.box.remove();
  const life = { id, policy, steps: [], note: "", box: el("li", { class: "life" }) };
  lives.set(id, life);
  at("lives").prepend(life.box);
  say(at("lives-empty"), "");
  show(life);
  while (lives.get(id) === life && !life.steps.at(-1)?.final) {
    try {
      const steps = await inTurn(() => call("tx.receipts", { id, after: life.steps.length }, WAIT_MS));
      life.note = "";
      for (const step of steps) life.steps.push({ ...step, when: new Date() });
      if (steps.length) show(life);
    } catch (fault) {
      life.note = fault instanceof Refused ? `Cannot be followed: ${fault.message}.` : "The node does not answer; trying again.";
      show(life);
      if (!(fault instanceof Gone)) return;
      await new Promise((done) => setTimeout(done, 3000));
    }
  }
}

// How far a life got: the state of each station (done, now, skipped, failed, later) and what is written under it.
export function course(policy, steps) {
  const has = (stage) => steps.some((step) => step.stage === stage);
  const hops = steps.filter((step) => step.stage === "re-stemmed").length;
  const seen = steps.reduce((most, step) => Math.max(most, step.peers ?? 0), 0);
  const isStemmed = has("stemmed") || hops > 0;
  const isPublic = has("diffused") || has("unprotected") || seen > 0;
  const state = {
    queued: has("queued") ? "done" : "later",
    stem: isStemmed ? "done" : policy === "direct" || has("unprotected") || has("diffused") ? "skipped" : "later",
    public: has("unprotected") ? "failed" : isPublic ? "done" : has("expired") ? "failed" : "later",
    seen: seen ? "done" : "later",
  };
  const under = {
    queued: "",
    stem: state.stem === "skipped" ? "none" : hops ? `again ×${hops}` : isStemmed && !isPublic && !has("expired") ? "embargo runs" : "",
    public: has("unprotected") ? "by us" : has("expired") ? "given up" : seen && !has("diffused") ? "further on" : "",
    seen: seen ? `by ${many(seen, "peer")}` : has("seen") ? "by nobody" : "",
  };
  const ended = steps.at(-1)?.final ?? false;
  const next = STATIONS.find((name) => state[name] === "later");
  if (next && steps.length && !ended && !has("expired")) state[next] = "now";
  return { state, under, hops, seen };
}

function show(life) {
  const id = el("code", { class: "id" }, life.id);
  const told = life.steps.map((step) => {
    const words = TOLD[step.stage]?.(step, life.policy) ?? step.stage;
    const extra = [step.final ? "the last word" : "", step.reason, step.first_hop_can_know ? "the first hop can tell that it is ours: nothing of others' came in" : ""];
    const more = extra.filter(Boolean).join("; ");
    return el("li", {}, el("time", {}, clock(step.when)), " ", el("b", {}, step.stage), ` ${words}${more ? ` (${more})` : ""}`);
  });
  const list = el("ol", { role: "log", "aria-label": `Steps of transaction ${short(life.id)}` }, ...told);
  const head = el("p", {}, id, ` policy: ${life.policy}`);
  life.box.replaceChildren(head, picture(course(life.policy, life.steps)), list);
  if (life.note) life.box.append(el("p", { class: "note" }, life.note));
}

function picture({ state, under, hops, seen }) {
  const drawn = svg("svg", { class: "course", viewBox: "0 0 460 120", "aria-hidden": "true" });
  STATIONS.forEach((name, i) => {
    if (i) drawn.append(svg("line", { class: `way ${state[STATIONS[i - 1]] === "skipped" ? "skipped" : state[name]}`, x1: X[i - 1] + 15, x2: X[i] - 15, y1: Y, y2: Y }));
  });
  for (let turn = 0; turn < Math.min(hops, 3); turn++) {
    const [r, x] = [17 + 6 * turn, X[1]];
    drawn.append(svg("path", { class: "again", d: `M${x - r},${Y - 8} A${r},${r} 0 1 1 ${x + r},${Y - 8}` }));
  }
  const fan = Math.min(seen, 12);
  for (let i = 0; i < fan; i++) {
    const turn = ((i + 0.5) / fan - 0.5) * Math.PI * 0.7;
    const [x, y] = [X[3] + 46 * Math.cos(turn), Y + 46 * Math.sin(turn)];
    drawn.append(svg("line", { class: "back", x1: x, y1: y, x2: X[3] + 15 * Math.cos(turn), y2: Y + 15 * Math.sin(turn) }));
    drawn.append(svg("circle", { class: "peer", cx: x, cy: y, r: 4 }));
  }
  STATIONS.forEach((name, i) => {
    drawn.append(svg("circle", { class: `station ${state[name]}`, cx: X[i], cy: Y, r: 13 }));
    const mark = { done: "✓", failed: "!", skipped: "–" }[state[name]] ?? "";
    drawn.append(svg("text", { class: `mark ${state[name]}`, x: X[i], y: Y + 5, "text-anchor": "middle" }, mark));
    // The last station's words end at it: the peers that showed it are drawn to its right.
    const words = i === 3 ? { x: X[i] + 4, "text-anchor": "end" } : { x: X[i], "text-anchor": "middle" };
    const high = Y - 22 - 6 * (name === "stem" ? Math.min(hops, 3) : 0);
    drawn.append(svg("text", { ...words, y: high }, TITLES[name]));
    drawn.append(svg("text", { ...words, class: "under", y: Y + 32 }, under[name]));
  });
  return drawn;
}
