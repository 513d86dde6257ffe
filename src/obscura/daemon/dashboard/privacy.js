// The privacy level, what it costs, and what is wrong.
import { at, bytes, el, facts, rate, say } from "/dashboard/parts.js";
import { recent } from "/dashboard/traffic.js";

const value = (found) => (Array.isArray(found) ? found.join(" to ") : found === null ? "no bound" : String(found));

export function show(privacy, uptime_s) {
  const { wire_bytes_sent: wire, real_bytes_sent: real, padding_bytes_sent: padding, dummy_bytes_sent: dummies } = privacy.cost;
  const now = recent();
  facts(at("privacy-facts"), [
    ["level", privacy.level],
    ["cover sent, last minute", now ? rate(now.cover) : "measuring"],
    ["cover sent, since the start", `${bytes(padding + dummies)} (${rate((padding + dummies) / Math.max(1, uptime_s))})`],
    ["sent for each real byte", real ? `${(wire / real).toFixed(1)} bytes` : "nothing real sent yet"],
    ["delay of a message, on average", `${Math.round(privacy.mean_hold_s * 1000)} ms at each hop`],
    ["a month at this rate", now ? `${bytes(now.cover * 2_592_000)} of cover` : "measuring"],
  ]);
  const lines = privacy.knobs.map((knob) =>
    el("tr", {}, el("th", { scope: "row" }, knob.knob), el("td", {}, value(knob.value)), el("td", {}, knob.meaning), el("td", {}, knob.source)),
  );
  const body = at("knobs").tBodies[0];
  if (body.textContent !== lines.map((line) => line.textContent).join("")) body.replaceChildren(...lines);
  const less = privacy.links.filter((link) => link.conceded.length);
  say(at("conceded"), less.length ? `${less.length} of ${privacy.links.length} peers asked for less: ${less[0].conceded.join(", ")}` : "");
}

// What can be seen without asking the doctor.
export function warnings(status) {
  const found = [];
  const { inbound, outbound } = status.peers;
  if (inbound + outbound === 0 && status.uptime_s > 60) found.push("No peers: nothing comes in or goes out. `obscura doctor` looks for the reason.");
  else if (outbound === 0 && status.uptime_s > 60)
    found.push("No peer that this node chose itself: all it knows comes from nodes that chose it.");
  if (status.headers > status.height + 2) found.push(`The chain is ${status.headers - status.height} blocks behind its headers.`);
  if (status.privacy === "standard") found.push("Level standard: no dummies and no chaff. Times and volumes of traffic can be seen.");
  at("warnings").replaceChildren(...found.map((text) => el("li", { class: "wrong" }, text)));
}

export function findings(list) {
  const order = { wrong: 0, note: 1, fine: 2 };
  const sorted = [...list].sort((a, b) => order[a.state] - order[b.state]);
  const wrong = list.filter((each) => each.state === "wrong").length;
  const notes = list.filter((each) => each.state === "note").length;
  say(at("doctor-told"), `${wrong} wrong, ${notes} to know, ${list.length - wrong - notes} fine.`);
  const lines = (some) =>
    some.map((each) => {
      const state = Object.hasOwn(order, each.state) ? each.state : "note";
      const inside = [el("b", {}, `${each.state}: ${each.check}`), ` ${each.found}`];
      if (each.wrong) inside.push(el("span", { class: "because" }, each.wrong));
      if (each.do) inside.push(el("code", {}, each.do));
      return el("li", { class: state }, ...inside);
    });
  at("findings").replaceChildren(...lines(sorted.filter((each) => each.state !== "fine")));
  at("fine").hidden = false;
  at("fine").querySelector("ul").replaceChildren(...lines(sorted.filter((each) => each.state === "fine")));
}
