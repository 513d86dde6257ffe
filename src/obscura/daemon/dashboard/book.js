// The address book's two tables: a square for each bucket, the darker the more of its cells are taken.
import { at, el, facts, many, svg } from "/dashboard/parts.js";

const SIDE = 8;

export function show(info, buckets) {
  facts(at("book-facts"), [
    ["new (told by others)", info.new],
    ["tried (reached by us)", info.tried],
    ["keys verified", info.verified_keys],
    ["anchors of the next start", info.anchors.length],
    ["discouraged hosts", info.discouraged_hosts],
    ["grouped by", info.grouped_by],
  ]);
  at("book-pictures").replaceChildren(
    ...["new", "tried"].map((name) => table(name, buckets[name], buckets.cells)),
  );
}

function table(name, taken, cells) {
  const columns = taken.length > 256 ? 64 : 32;
  const lines = Math.ceil(taken.length / columns);
  const used = taken.filter((count) => count).length;
  const sum = taken.reduce((a, b) => a + b, 0);
  const told = `${name}: ${many(sum, "address", "addresses")} in ${used} of ${taken.length} buckets of ${cells} cells`;
  const picture = svg("svg", { viewBox: `0 0 ${columns * SIDE} ${lines * SIDE}`, class: "buckets", role: "img", "aria-label": told });
  taken.forEach((count, i) => {
    const shade = count === 0 ? 0 : Math.min(4, 1 + Math.floor((4 * count) / (cells + 1)));
    const [x, y] = [(i % columns) * SIDE + 0.5, Math.floor(i / columns) * SIDE + 0.5];
    picture.append(svg("rect", { class: `b${shade}`, x, y, width: SIDE - 1, height: SIDE - 1 }));
  });
  return el("figure", {}, picture, el("figcaption", {}, told));
}
