// The tree of a search: canvas, node pointed at, progress, pointer and keyboard.
const canvas = byId("tree"), pen = canvas.getContext("2d");
const count = data.value.length;
const OPERATIONS = data.operations_by_number;
let visible = count, hovered = null, pinned = null;
let view = { zoom: 1, x: 0, y: 0 }, size = { w: 1, h: 1 };  // view.x, view.y: what is in the middle

const children = Array.from({ length: count }, () => []);
for (let i = 1; i < count; i++) children[data.parent[i]].push(i);

// --- the tree on the canvas ---

const [low, high] = data.limits, last = data.colours.length - 1;
const bucket = data.value.map(v => Math.round(Math.min(1, Math.max(0, (v - low) / (high - low))) * last));
const buckets = data.colours.map(() => []);
bucket.forEach((b, i) => buckets[b].push(i));

const scheme = matchMedia("(prefers-color-scheme: dark)"), styles = getComputedStyle(document.documentElement);
const colours = {};  // of the canvas, as the style has them
function readColours() {
  for (const name of ["back", "ink", "dot", "focus"]) colours[name] = styles.getPropertyValue(`--${name}`);
}
const pathColour = path => path.is_best ? colours.ink : path.colour;

const scale = () => 0.47 * Math.min(size.w, size.h) * view.zoom;
const screenX = i => size.w / 2 + (data.x[i] - view.x) * scale();
const screenY = i => size.h / 2 - (data.y[i] - view.y) * scale();
const shrink = Math.min(2, Math.sqrt(2500 / count));  // many nodes are drawn smaller, until one zooms in
const radius = i => (0.8 + 0.8 * data.visits[i] ** 0.17) * Math.min(3, Math.max(shrink, shrink * view.zoom ** 0.8));

function draw() {
  const width = Math.round(size.w * devicePixelRatio), height = Math.round(size.h * devicePixelRatio);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  pen.clearRect(0, 0, size.w, size.h);
  pen.lineWidth = 0.6;
  pen.globalAlpha = count > 5000 && view.zoom < 3 ? 0.25 : 0.5;
  for (const [b, nodes] of buckets.entries()) {
    pen.strokeStyle = data.colours[b];
    pen.beginPath();
    for (const i of nodes) {
      if (i >= visible) break;
      if (i > 0) { pen.moveTo(screenX(data.parent[i]), screenY(data.parent[i])); pen.lineTo(screenX(i), screenY(i)); }
    }
    pen.stroke();
  }
  pen.globalAlpha = 1;
  for (const path of data.paths) drawPath(path.nodes, colours.back, 5, []);  // to stand out from the lines below
  for (const path of data.paths) drawPath(path.nodes, pathColour(path), 2.4, path.dashes);
  for (const [b, nodes] of buckets.entries()) drawNodes(nodes, data.colours[b]);
  mark(0, 8, colours.ink);
  if (data.best < visible) mark(data.best, 9, colours.ink);
  for (const i of [pinned, hovered]) if (i !== null) mark(i, radius(i) + 4, colours.focus);
}

function drawNodes(nodes, colour) {
  pen.fillStyle = colour;
  pen.strokeStyle = colours.dot;
  pen.lineWidth = 0.4;
  pen.beginPath();
  for (const i of nodes) {
    if (i >= visible) break;
    const x = screenX(i), y = screenY(i), r = radius(i);
    if (x < -r || y < -r || x > size.w + r || y > size.h + r) continue;
    if (data.finished[i] || r < 1) pen.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
    else { pen.moveTo(x + r, y); pen.arc(x, y, r, 0, 7); }
  }
  pen.fill();
  if (radius(0) > 2.5) pen.stroke();
}

function drawPath(nodes, colour, width, dashes) {
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.setLineDash(dashes);
  pen.beginPath();
  for (const i of nodes) if (i < visible) pen.lineTo(screenX(i), screenY(i));
  pen.stroke();
  pen.setLineDash([]);
}

function mark(i, r, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(screenX(i), screenY(i), r, 0, 7);
  pen.stroke();
}

let waiting = false;
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function fit() {
  const box = canvas.getBoundingClientRect();
  size = { w: box.width, h: box.height };
  redraw();
}

function zoomBy(factor, px = size.w / 2, py = size.h / 2) {
  const before = scale();
  view.zoom = Math.min(400, Math.max(0.5, view.zoom * factor));
  const change = 1 / before - 1 / scale();  // what is under the pointer stays there
  view.x += (px - size.w / 2) * change;
  view.y -= (py - size.h / 2) * change;
  redraw();
}

function whole() { view = { zoom: 1, x: 0, y: 0 }; redraw(); }

// --- the node pointed at ---

function nearest(px, py, reach) {
  let found = null, closest = reach;
  for (let i = 0; i < visible; i++) {
    const distance = Math.hypot(screenX(i) - px, screenY(i) - py) - radius(i);
    if (distance < closest) { closest = distance; found = i; }
  }
  return found;
}

function depth(i) { let steps = 0; while (i > 0) { i = data.parent[i]; steps++; } return steps; }

function show() {
  const i = hovered ?? pinned ?? 0;
  byId("what").textContent = i === 0 ? "Root" : data.finished[i] ? "Finished cell" : "State under construction";
  const facts = byId("facts");
  facts.replaceChildren();
  const missing = data.finished[i] && data.value[i] === 0 ? " (not in the table)" : "";
  const value = data.visits[i] === 0 ? "not known yet" : data.value[i].toFixed(7) + missing;
  for (const [name, text] of [
    ["value", value],
    ["visits", data.visits[i].toLocaleString("en")],
    ["created", `${(data.number[i] + 1).toLocaleString("en")} of ${data.total.toLocaleString("en")}`],
    ["actions", `${depth(i)} from the root`],
    ["children", `${children[i].length} drawn`],
  ]) { element("dt", name, facts); element("dd", text, facts); }
  if (data.closed[i]) { element("dt", "closed", facts); element("dd", "nothing new can come of it", facts); }
  if (i === data.best) { element("dt", "this is", facts); element("dd", data.best_is, facts); }
  byId("cell").replaceChildren(cellPicture(data.operations[i], data.edges[i]));
  redraw();
}

function pin(i, bring) {
  pinned = i;
  hovered = null;
  if (i !== null && bring) {
    const x = screenX(i), y = screenY(i);
    if (x < 20 || y < 20 || x > size.w - 20 || y > size.h - 20) { view.x = data.x[i]; view.y = data.y[i]; }
  }
  show();
}

// The edges of a cell whose vertices stand in a row; see arcs() in tree_pictures.py.
function arcs(vertices, edges) {
  const pairs = [], result = [];
  for (let y = 1, bit = 0; y < vertices; y++) {
    for (let x = 0; x < y; x++, bit++) if (edges >> bit & 1) pairs.push([x, y]);
  }
  pairs.sort((p, q) => (q[1] - q[0]) - (p[1] - p[0]) || p[0] - q[0]);
  for (const [x, y] of pairs) {
    const crosses = ([a, b]) => (a < x && x < b && b < y) || (x < a && a < y && y < b);
    const cost = side => result.filter(edge => edge[2] === side && crosses(edge)).length;
    const balance = result.reduce((sum, edge) => sum + edge[2], 0);
    const side = cost(1) - cost(-1) || balance > 0 && cost(1) === cost(-1) ? (cost(1) < cost(-1) ? 1 : -1) : 1;
    result.push([x, y, y > x + 1 ? side : 0]);
  }
  return result;
}

const verticesOf = operations => ["input", ...Array.from(operations, o => OPERATIONS[o]), "output"];
const edgesInWords = (names, lines) =>
  lines.map(([x, y]) => `${names[x]} ${x} to ${names[y]} ${y}`).sort().join("; ") || "none";

function cellPicture(operations, edges) {
  const names = verticesOf(operations);
  const step = 62, wide = 128, tall = 32, height = step * (names.length - 1) + tall + 8;
  const lines = arcs(names.length, edges);
  const picture = svg("svg", { viewBox: `-150 ${-tall / 2 - 4} 300 ${height}`, role: "img", class: "cell" });
  svg("title", {}, picture).textContent = `Cell with the edges ${edgesInWords(names, lines)}`;
  const id = newId();
  const arrow = { id, viewBox: "0 0 8 8", refX: 7.5, refY: 4, markerWidth: 6, markerHeight: 6, orient: "auto" };
  const tip = svg("marker", arrow, svg("defs", {}, picture));
  svg("path", { d: "M0,0L8,4L0,8Z" }, tip);
  for (const [x, y, side] of lines) {
    const top = x * step, bottom = y * step, out = side * (wide / 2 + 15 * (y - x));
    const d = side === 0 ? `M0,${top + tall / 2}V${bottom - tall / 2}`
      : `M${side * wide / 2},${top + 7}C${out},${top + 7} ${out},${bottom - 7} ${side * wide / 2},${bottom - 7}`;
    svg("path", { d, class: "edge", "marker-end": `url(#${id})` }, picture);
  }
  names.forEach((name, i) => {
    const fill = i === 0 || i === names.length - 1 ? data.plain : data.boxes[operations[i - 1]];
    const box = { x: -wide / 2, y: i * step - tall / 2, width: wide, height: tall, rx: 6, fill };
    svg("rect", box, picture);
    svg("text", { y: i * step + 4.5 }, picture).textContent = name;
  });
  return picture;
}

// --- progress ---

function setTime() {
  const until = Number(byId("time").value);
  let from = 0, to = count;
  while (from < to) {
    const middle = (from + to) >> 1;
    if (data.appears[middle] < until) from = middle + 1; else to = middle;
  }
  visible = from;
  byId("so-far").textContent =
    `${until.toLocaleString("en")} of ${data.total.toLocaleString("en")} nodes created, ` +
    `${visible.toLocaleString("en")} drawn; ${bestSample(until)}`;
  if (hovered !== null && hovered >= visible) hovered = null;
  if (pinned !== null && pinned >= visible) pinned = null;
  show();
}

// At the end the best sample; before, what is known of it: see best_so_far() in tree_page.py.
function bestSample(until) {
  if (until >= data.total) {
    if (data.best_accuracy === 0) return "no sample yet";
    return `best sample ${data.best_is_sure ? "" : "at least "}${data.best_accuracy.toFixed(7)}`;
  }
  const known = data.so_far.filter(([nodes]) => nodes <= until), best = known.at(-1)?.[1].toFixed(7);
  if (data.so_far_is_exact) return best ? `best sample so far ${best}` : "no sample yet";
  return best ? `best sample so far at least ${best} (when others were taken was not saved)`
    : "best sample so far not known (when samples were taken was not saved)";
}

let timer = null;
function play() {
  const slider = byId("time");
  if (timer === null && Number(slider.value) >= data.total) slider.value = 1;
  timer = timer === null ? setInterval(() => {
    slider.value = Number(slider.value) + Math.max(1, Math.round(data.total / 300));
    setTime();
    if (Number(slider.value) >= data.total) play();
  }, 50) : clearInterval(timer) ?? null;
  byId("play").textContent = timer === null ? "play" : "pause";
  byId("play").setAttribute("aria-pressed", timer !== null);
}

// --- pointer and keyboard ---

const pointers = new Map();
let moved = 0;
const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
canvas.addEventListener("pointerdown", event => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
  moved = pointers.size > 1 ? Infinity : 0;
});
canvas.addEventListener("pointermove", event => {
  const { offsetX: x, offsetY: y } = event, before = pointers.get(event.pointerId);
  if (!before) {
    const found = nearest(x, y, 8);
    if (found !== hovered) { hovered = found; show(); }
    return;
  }
  const gap = pointers.size === 2 ? spread() : 0;
  pointers.set(event.pointerId, { x, y });
  moved += Math.hypot(x - before.x, y - before.y);
  if (pointers.size === 2) {
    const [a, b] = [...pointers.values()];
    zoomBy(spread() / Math.max(gap, 1), (a.x + b.x) / 2, (a.y + b.y) / 2);
  } else if (moved > 5) {
    view.x -= (x - before.x) / scale();
    view.y += (y - before.y) / scale();
    redraw();
  }
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, event => {
  const reach = event.pointerType === "touch" ? 22 : 8;
  if (name === "pointerup" && moved <= 5) pin(nearest(event.offsetX, event.offsetY, reach));
  pointers.delete(event.pointerId);
});
canvas.addEventListener("pointerleave", () => { hovered = null; show(); });
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  zoomBy(1.0015 ** -event.deltaY, event.offsetX, event.offsetY);
}, { passive: false });
canvas.addEventListener("keydown", event => {
  const i = pinned ?? 0, there = j => j !== undefined && j < visible;
  const below = children[i].filter(there), beside = i > 0 ? children[data.parent[i]].filter(there) : [0];
  const next = step => beside[(beside.indexOf(i) + step + beside.length) % beside.length];
  const action = {
    ArrowUp: () => pin(Math.max(data.parent[i], 0), true),
    ArrowDown: () => below.length && pin(below.reduce((a, b) => data.visits[b] > data.visits[a] ? b : a), true),
    ArrowLeft: () => pin(next(-1), true),
    ArrowRight: () => pin(next(1), true),
    "+": () => zoomBy(1.4), "-": () => zoomBy(1 / 1.4), "0": whole,
  }[event.key];
  if (action) { event.preventDefault(); action(); }
});
byId("in").onclick = () => zoomBy(1.6);
byId("out").onclick = () => zoomBy(1 / 1.6);
byId("whole").onclick = whole;
byId("root").onclick = () => pin(0, true);
byId("best").onclick = () => {
  if (data.best >= visible) { byId("time").value = data.total; setTime(); }
  pin(data.best, true);
};
byId("play").onclick = play;
byId("time").oninput = setTime;

// --- legend, and off ---

function legend() {
  const list = byId("legend"), bar = element("li", data.value_is, list), swatch = document.createElement("span");
  swatch.id = "bar";
  swatch.style.background = `linear-gradient(90deg, ${data.colours.join(",")})`;
  bar.append(" ");
  const scale = element("span", low.toFixed(3), bar);
  scale.append(swatch, high.toFixed(3));
  for (const { label, colour, dashes, is_best } of data.paths) {
    const item = document.createElement("li"), line = document.createElement("i");
    line.style.borderTopColor = is_best ? "var(--ink)" : colour;
    line.style.borderTopStyle = dashes.length === 0 ? "solid" : dashes[0] > 6 ? "dashed" : "dotted";
    item.append(line, label);
    list.append(item);
  }
  element("li", "circled: the root, and " + data.best_is, list);
  element("li", "squares: finished cells; larger: more visits", list);
}

legend();
readColours();
scheme.addEventListener("change", () => { readColours(); redraw(); });
byId("time").max = data.total;
byId("time").value = data.total;
new ResizeObserver(fit).observe(canvas);
fit();
setTime();
