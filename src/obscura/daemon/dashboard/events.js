// What happens, newest first. Kept short, as text.
import { at, clock, el, say } from "/dashboard/parts.js";
import { Gone, events } from "/dashboard/rpc.js";

const KEPT = 60;
const QUIET = new Set(["pong", "transaction"]);

export async function follow() {
  for (;;) {
    try {
      for await (const event of events()) add(event);
    } catch (fault) {
      if (!(fault instanceof Gone)) say(at("events-told"), `No events: ${fault.message}.`);
    }
    await new Promise((done) => setTimeout(done, 3000));
  }
}

function add({ kind, ...fields }) {
  if (QUIET.has(kind)) return;
  say(at("events-told"), "");
  const told = Object.entries(fields).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  const list = at("events");
  list.prepend(el("li", {}, el("time", {}, clock(new Date())), " ", el("b", {}, kind), " ", el("bdi", {}, told.join(", "))));
  while (list.children.length > KEPT) list.lastChild.remove();
}
