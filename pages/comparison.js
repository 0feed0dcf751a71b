// A comparison: traces of all trials and means by method, a legend that hides and shows them, tables.
const lines = data.methods.flatMap(({ method: group, colour, trials }) =>
  trials.map(trial => ({ ...trial, steps: true, group, colour, width: 1, opacity: 0.35 })));
lines.push(...data.methods.map(({ method: group, colour, dashes, mean: points }) =>
  ({ points, steps: true, group, colour, dashes, width: 3 })));
if (data.best_test !== null) {
  const points = data.x.map(x => [x, data.best_test]);
  lines.push({ points, colour: "var(--ink)", width: 1 });
}

const last = ({ mean }) => mean.findLast(([, y]) => y !== null);
const inWords = data.methods.filter(last).map(method => {
  const [samples, accuracy] = last(method);
  return `${method.method} ${accuracy.toFixed(5)} after ${counted(samples)} samples`;
});
const best = data.best_test === null ? "" : ` The level line is at ${data.best_test.toFixed(7)}.`;
const traces = chart(byId("chart"), {
  title: "Test accuracy of the best so far",
  said: `Means of all trials at the end: ${inWords.join("; ")}.${best}`,
  x: { label: "unique valid samples (logarithmic)", low: data.x[0], high: data.x[1], log: true },
  y: { label: "test accuracy", ...around(...data.y) },
  lines,
});

const toggles = data.methods.map(({ method, colour, dashes }) => {
  const button = element("button", "", byId("toggles"));
  const sample = svg("svg", { width: 34, height: 10, "aria-hidden": "true" }, button);
  const across = n => n;
  drawLine({ points: [[0, 5], [34, 5]], colour, dashes, width: 3 }, across, across, sample);
  button.append(method);
  const set = shown => {
    button.setAttribute("aria-pressed", shown);
    traces.show(method, shown);
  };
  button.onclick = () => set(button.getAttribute("aria-pressed") === "false");
  button.setAttribute("aria-pressed", true);
  return set;
});
for (const [name, shown] of [["all", true], ["none", false]]) {
  element("button", name, byId("toggles")).onclick = () => toggles.forEach(set => set(shown));
}

for (const { label, head, rows } of data.tables) {
  const part = element("section", "", byId("tables"));
  part.className = "part";
  element("h2", label, part);
  table(part, label, head, rows);
}
