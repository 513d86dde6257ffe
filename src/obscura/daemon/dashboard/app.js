// Asks the node again and again, and hands the answers to those who show them.
import * as book from "/dashboard/book.js";
import * as events from "/dashboard/events.js";
import * as nodes from "/dashboard/nodes.js";
import * as own from "/dashboard/own.js";
import { at, bytes, facts, many, say, span } from "/dashboard/parts.js";
import * as privacy from "/dashboard/privacy.js";
import { Gone, batch, call, leave, logout, may } from "/dashboard/rpc.js";
import * as traffic from "/dashboard/traffic.js";

const OFTEN_MS = 2_000;
const SELDOM = 8; // the address book and the privacy level: with every so many'th question
const DOCTOR_MS = 120_000;
const OFTEN = [["status"], ["peers"], ["chain.info"]];
const SELDOMLY = [["privacy.show"], ["addresses.info"], ["addresses.buckets"]];
let turn = 0;
let isGone = false;

async function look() {
  const isSeldom = turn++ % SELDOM === 0;
  try {
    const answers = await batch(isSeldom ? [...OFTEN, ...SELDOMLY] : OFTEN);
    const fault = answers.find((answer) => answer.error);
    if (fault) throw new Error(fault.error.message);
    show(answers.map((answer) => answer.result));
    banner("");
  } catch (fault) {
    turn = 0;
    banner(fault instanceof Gone ? "The node does not answer. What is shown is old; trying again." : `The node refuses: ${fault.message}.`);
  }
  setTimeout(look, OFTEN_MS);
}

function show([status, peers, chain, level, info, buckets]) {
  document.title = `${status.network}: ${many(peers.length, "peer")}, height ${status.height} – Obscura`;
  say(at("network"), status.network);
  facts(at("essentials"), [
    ["peers", `${status.peers.outbound} out, ${status.peers.inbound} in`],
    ["height", status.headers > status.height ? `${status.height} of ${status.headers}` : status.height],
    ["mempool", many(status.mempool_transactions, "transaction")],
    ["privacy", status.privacy],
    ["up", span(status.uptime_s)],
    ["version", status.version],
  ]);
  traffic.sample(status, peers);
  nodes.show(peers);
  facts(at("chain-facts"), [
    ["height", status.height],
    ["tip", status.tip],
    ["headers", status.headers],
    ["blocks asked for", status.blocks_in_flight],
    ["stored", `${bytes(chain.block_bytes)}${chain.prune ? ` (pruned to ${chain.prune})` : ""}`],
    ["mempool", `${many(status.mempool_transactions, "transaction")}, ${bytes(status.mempool_bytes)}`],
  ]);
  const progress = at("progress");
  progress.max = Math.max(1, status.headers);
  progress.value = status.headers ? status.height : 1;
  privacy.warnings(status);
  if (level) {
    privacy.show(level, status.uptime_s);
    book.show(info, buckets);
  }
  for (const waiting of document.querySelectorAll(".loading")) waiting.classList.remove("loading");
}

function banner(text) {
  say(at("banner"), text);
  say(at("state"), text ? "no answer" : "live");
  at("state").className = text ? "pill gone" : "pill live";
  if (isGone !== Boolean(text)) document.body.classList.toggle("stale", (isGone = Boolean(text)));
}

async function askDoctor() {
  const button = at("ask-doctor");
  button.disabled = true;
  say(at("doctor-told"), "The doctor looks; this may take a minute.");
  try {
    privacy.findings(await call("doctor", {}, DOCTOR_MS));
  } catch (fault) {
    say(at("doctor-told"), `No findings: ${fault.message}.`);
  } finally {
    button.disabled = false;
  }
}

if (!sessionStorage.getItem("key")) {
  leave("");
} else {
  at("logout").addEventListener("click", () => logout().catch(() => {}));
  at("ask-doctor").addEventListener("click", askDoctor);
  at("send").hidden = at("follow").hidden = !may("write");
  at("may-not-send").hidden = may("write");
  at("ask-doctor").hidden = !may("admin");
  if (!may("admin")) say(at("doctor-told"), "The doctor's findings need the cookie or a token of scope admin.");
  own.start();
  look();
  events.follow();
  if (may("admin")) askDoctor();
}
