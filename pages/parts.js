"use strict";
// What all pages share: the data, elements, tables, charts.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);

function element(name, text, parent) {
  const result = document.createElement(name);
  result.textContent = text;
  parent?.append(result);
  return result;
}

function svg(name, attributes, parent) {
  const result = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) result.setAttribute(key, value);
  parent?.append(result);
  return result;
}

let ids = 0;
const newId = () => `made${++ids}`;
const counted = number => number.toLocaleString("en");

// A table that scrolls by itself where it is too wide; rows are lists of texts. Columns in `long` may break.
function table(parent, label, head, rows, long = []) {
  const box = element("div", "", parent), result = element("table", "", box);
  box.className = "scroll";
  box.tabIndex = 0;  // for the arrow keys
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", label);
  const first = element("tr", "", element("thead", "", result));
  for (const name of head) element("th", name, first).scope = "col";
  const body = element("tbody", "", result);
  for (const row of rows) {
    const line = element("tr", "", body);
    row.forEach((text, i) => { element("td", text, line).className = long.includes(i) ? "long" : ""; });
  }
  return result;
}

function foldedTable(parent, label, head, rows) {
  const fold = element("details", "", parent);
  element("summary", label, fold);
  table(fold, label, head, rows);
}

// --- charts ---

function linearTicks(low, high, most, least = 0) {
  const rough = Math.max(least, (high - low) / Math.max(1, most)), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(n => n * power).find(n => n >= rough);
  const digits = Math.min(7, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => {
    const at = (first + i) * step;
    return { at, text: step < 1 ? at.toFixed(digits) : counted(at) };
  });
}

function logTicks(low, high, most) {
  const all = [];
  for (let power = 1; power <= high * 1.0001; power *= 10) {
    for (const n of [1, 2, 5]) if (n * power >= low && n * power <= high * 1.0001) all.push(n * power);
  }
  const powers = all.filter(at => Math.log10(at) % 1 === 0);
  return (all.length <= most || powers.length < 2 ? all : powers).map(at => ({ at, text: counted(at) }));
}

// A chart of lines as wide as its place, drawn anew when that changes.
//   title, said: what it is, and what it shows, for who does not see it
//   x, y: { label, low, high, log, least }; the last the least step between numbers of the axis
//   lines: { points: [[x, y], ...], end, steps, group, colour, dashes, width, opacity }; a y may be null
// Returns what hides and shows groups.
function chart(parent, { title, said, x, y, lines }) {
  const figure = element("figure", "", parent), hidden = new Set();
  figure.className = "chart";
  element("h3", title, figure);
  const plot = element("div", "", figure);
  plot.className = "plot";
  const draw = () => plot.replaceChildren(picture(plot.clientWidth, { title, said, x, y, lines }, hidden));
  new ResizeObserver(draw).observe(plot);
  draw();
  return { figure, show(group, shown) { hidden[shown ? "delete" : "add"](group); draw(); } };
}

const HEIGHT = 280, LEFT = 72, RIGHT = 24, TOP = 10, BOTTOM = 44;

function picture(width, { title, said, x, y, lines }, hidden) {
  const right = Math.max(LEFT + 40, width - RIGHT), bottom = HEIGHT - BOTTOM, by = x.log ? Math.log : n => n;
  const across = n => LEFT + (by(n) - by(x.low)) / (by(x.high) - by(x.low)) * (right - LEFT);
  const up = n => bottom - (n - y.low) / (y.high - y.low) * (bottom - TOP);
  const names = [newId(), newId()], clip = newId();
  const words = { role: "img", "aria-labelledby": names[0], "aria-describedby": names[1] };
  const result = svg("svg", { viewBox: `0 0 ${right + RIGHT} ${HEIGHT}`, height: HEIGHT, ...words });
  svg("title", { id: names[0] }, result).textContent = title;
  svg("desc", { id: names[1] }, result).textContent = said;
  const inside = svg("clipPath", { id: clip }, svg("defs", {}, result));
  svg("rect", { x: LEFT - 2, y: TOP - 2, width: right - LEFT + 4, height: bottom - TOP + 4 }, inside);
  const text = (words, place) => { svg("text", place, result).textContent = words; };
  for (const { at, text: words } of linearTicks(y.low, y.high, 5)) {
    svg("path", { d: `M${LEFT},${up(at)}H${right}`, class: "grid" }, result);
    text(words, { x: LEFT - 6, y: up(at) + 4, "text-anchor": "end" });
  }
  const most = Math.floor((right - LEFT) / 65);
  for (const { at, text: words } of (x.log ? logTicks : linearTicks)(x.low, x.high, most, x.least)) {
    svg("path", { d: `M${across(at)},${TOP}V${bottom}`, class: "grid" }, result);
    text(words, { x: across(at), y: bottom + 17, "text-anchor": "middle" });
  }
  svg("path", { d: `M${LEFT},${TOP}V${bottom}H${right}`, class: "axis", fill: "none" }, result);
  text(x.label, { x: (LEFT + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" });
  const middle = (TOP + bottom) / 2;
  text(y.label, { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` });
  const group = svg("g", { "clip-path": `url(#${clip})` }, result);
  for (const line of lines) if (!hidden.has(line.group)) drawLine(line, across, up, group);
  return result;
}

function drawLine({ points, end, steps, colour, dashes, width, opacity }, across, up, parent) {
  let d = "", before = null;
  for (const [x, y] of points) {
    const [h, v] = [across(x).toFixed(1), up(y).toFixed(1)];
    if (y !== null) d += before === null ? `M${h},${v}` : steps ? `H${h}V${v}` : `L${h},${v}`;
    before = y;
  }
  if (end !== undefined && d) d += `H${across(end).toFixed(1)}`;
  const look = { d, class: "line method", "stroke-width": width, "stroke-opacity": opacity ?? 1 };
  svg("path", { ...look, "stroke-dasharray": (dashes ?? []).join(" ") || "none" }, parent)
    .style.setProperty("--line", colour);
}

// Limits of an axis with a little room.
function around(low, high) {
  const room = Math.max(0.06 * (high - low), 0.002);
  return { low: low - room, high: high + room };
}
