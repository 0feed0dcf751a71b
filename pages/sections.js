// What was found, beside the tree: best so far, best cells, trainings that failed.
function bestSoFar() {
  const part = byId("best-so-far"), { over_samples: points, samples } = data.found;
  if (points === null) {
    element("p", "When each new best was sampled was not saved.", part);
    return;
  }
  if (points.length === 0) {
    element("p", "No sample yet.", part);
    return;
  }
  const charts = element("div", "", part);
  charts.className = "charts";
  bestChart(charts, "unique samples", { points, end: samples, log: samples >= 100, least: 1 });
  const time = data.found.over_time;
  if (time) bestChart(charts, "seconds of training", time);
  if (data.found.time_words) element("p", data.found.time_words, part);
}

function bestChart(parent, what, { points, end, log, least }) {
  const [first, best] = [points[0], points.at(-1)], shown = x => x.toLocaleString("en", { maximumFractionDigits: 1 });
  const said = `From ${first[1].toFixed(4)} after ${shown(first[0])} ${what} to ${best[1].toFixed(7)} ` +
    `after ${shown(best[0])}, of ${shown(end)} in all; ${points.length} steps.`;
  const { figure } = chart(parent, {
    title: `Accuracy of the best over ${what}`, said,
    x: { label: what + (log ? " (logarithmic)" : ""), low: log ? 1 : 0, high: end || 1, log, least },
    y: { label: data.found.accuracy_is, ...around(first[1], best[1]) },
    lines: [{ points, end, steps: true, colour: "var(--drawn)", width: 2.5 }],
  });
  foldedTable(figure, `The values over ${what}`, [what, data.found.accuracy_is],
    points.map(([x, y]) => [shown(x), y.toFixed(7)]));
}

function bestCells() {
  const part = byId("best-cells"), cells = data.found.best_cells;
  element("p", cells.length ? data.found.best_cells_words : "No sample is known yet.", part);
  const row = element("div", "", part);
  row.className = "cells";
  cells.forEach(({ operations, edges, accuracy, sample, test }, i) => {
    const figure = element("figure", "", row), caption = element("figcaption", "", figure);
    element("strong", `${i + 1}. ${accuracy.toFixed(7)}`, caption);
    caption.append(` ${data.found.accuracy_is}; sample ${counted(sample)}`);
    if (test !== null) caption.append(`; test accuracy ${test.toFixed(7)}`);
    figure.append(cellPicture(operations, edges));
  });
}

function failures() {
  const { failures: failed, failed: number } = data.found;
  if (number === 0) return;
  const part = byId("failures");
  const listed = failed.length < number ? `; the first ${counted(failed.length)} are listed` : "";
  part.hidden = false;
  element("p", `${counted(number)} of ${counted(number + data.found.samples)} trainings${listed}.`, part);
  const inWords = ({ cell, operations, edges }) => {
    const names = verticesOf(operations);
    return `cell ${cell}: ${edgesInWords(names, arcs(names.length, edges))}`;
  };
  table(part, "Trainings that failed", ["outcome", "reason", "cell, by its edges"],
    failed.map(failure => [failure.outcome, failure.reason, inWords(failure)]), [1, 2]);
}

bestSoFar();
bestCells();
failures();
