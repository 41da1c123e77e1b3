"use strict";
// Wires the report of one evaluation.

function start() {
  startTheme();
  const data = JSON.parse(find("data").textContent);
  const items = data.cases.map((values, index) => {
    const item = { index };
    data.columns.forEach((column, at) => { item[column.name] = values[at]; });
    item.class ??= "unknown";
    return item;
  });
  const classes = ordered(new Set(items.map((item) => item.class)));
  const panes = ["image", "truth", "prediction", "error"].map((kind) => ({ kind, label: kind === "error" ? "errors" : kind }));
  const error = panes.find((pane) => pane.kind === "error");
  const area = data.columns.find((column) => column.name === data.area);
  const facts = (item) => data.columns.slice(1).map((column) => [column.label, show(item[column.name], column.numeric ? column.whole : undefined)]);
  const dialog = new CaseDialog({ panes: () => panes, facts, overlay: (item) => data.overlays[item.index] });
  const table = new CaseTable({ items, columns: data.columns, panes, main: data.main, sort: { name: data.main, descending: data.less_is_better.includes(data.main) }, dialog });
  dialog.onclose = (item) => table.focus(item);
  const open = (item, list) => dialog.open(item, list ?? (table.selected.includes(item) ? table.selected : items));

  const scores = data.columns.filter((column) => data.scores.includes(column.name));
  const chooser = find("score");
  chooser.append(...scores.map((column) => element("option", { value: column.name }, column.label)));
  chooser.value = data.main;
  find("classes").append(...key(classes));
  const draw = () => {
    const column = scores.find(({ name }) => name === chooser.value);
    for (const node of document.querySelectorAll(".score-name")) node.textContent = column.label;
    const interval = data.intervals[column.name];
    find("histogram-note").textContent = interval ? ", shaded its 95 % interval" : "";
    find("histogram").replaceChildren(histogram({ items, name: column.name, label: column.label, classes, interval,
      select: (from, to) => table.choose(column.name, from, to) }));
    if (area) find("scatter").replaceChildren(sizeScatter(items, column, area, classes, { pane: error, open }));
  };
  chooser.onchange = draw;
  draw();

  if (data.calibration) find("reliability").append(reliability(data.calibration, data.bins));
  if (data.risk.length) find("risk").append(riskCoverage(data.risk));
  for (const [id, ...wanted] of [["losses", "loss"], ["learning", "iou"]]) {
    const series = curves(data.curves, wanted);
    if (series.length) find(id).append(learning(series, wanted[0] === "loss" ? "loss" : "IoU", data.best_epoch));
  }
  drawExamples(items, data, panes, open);
  document.documentElement.dataset.ready = Math.round(performance.now());
}

/** A score against the lesion's area, with medians of groups of equal count. */
function sizeScatter(items, column, area, classes, handlers) {
  const rated = items.filter((item) => isNumber(item[column.name]));
  const sized = rated.filter((item) => item[area.name] > 0).sort((a, b) => a[area.name] - b[area.name]);
  const empty = rated.filter((item) => !(item[area.name] > 0));
  const areas = sized.map((item) => item[area.name]);
  const low = areas.length ? areas[0] / 1.15 : 1, high = areas.length ? areas.at(-1) * 1.15 : 10;
  // cases without a lesion stand at the left, where a logarithm cannot put them
  const from = empty.length ? low / (high / low) ** 0.08 : low;
  const at = (item) => (item[area.name] > 0 ? item[area.name] : from);
  const marks = logTicks(low, high);
  const chart = plot(`${column.label} against ${area.label}, ${rated.length} images`,
    { from, to: high, log: true, label: area.label, ticks: empty.length ? [from, ...marks] : marks,
      format: (value) => (empty.length && value === from ? "none" : value.toLocaleString("en")) },
    { ...extent(rated.map((item) => item[column.name])), label: column.label });
  addPoints(chart, rated.map((item) => ({ item, x: at(item), y: item[column.name],
    lines: [`${column.label} ${show(item[column.name], false)}, ${item.class}`, `${area.label} ${show(item[area.name])}`] })), classes, handlers);
  const count = Math.min(8, Math.floor(sized.length / 5));
  if (count > 1) {
    const points = Array.from({ length: count }, (_, group) => {
      const part = sized.slice(Math.round((group * sized.length) / count), Math.round(((group + 1) * sized.length) / count));
      return [quantile(part.map((item) => item[area.name]), 0.5), quantile(part.map((item) => item[column.name]), 0.5)];
    });
    const path = points.map(([x, y], number) => `${number ? "L" : "M"}${chart.x(x)} ${chart.y(y)}`).join("");
    chart.svg.append(shape("path", { class: "mean", fill: "none", "pointer-events": "none", d: path }));
  }
  return chart.svg;
}

/** The bins that hold pixels, of so many in all. */
function reliability(bins, count) {
  const chart = plot("Reliability curve", { from: 0, to: 1, label: "predicted probability of lesion" }, { from: 0, to: 1, label: "share of pixels that are lesion" });
  const { svg, x, y } = chart, used = bins.filter((bin) => bin.share > 0 && bin.frequency !== null);
  const width = x(1 / count) - x(0) - 4, least = 1e-5;
  for (const bin of used) {
    const height = (y(0) - y(0.25)) * Math.max(0.02, 1 - Math.log10(bin.share) / Math.log10(least));
    const middle = (Math.min(count - 1, Math.floor(bin.confidence * count)) + 0.5) / count;
    svg.append(shape("rect", { class: "whole", x: x(middle) - width / 2, width, y: y(0) - height, height },
      shape("title", {}, `${(100 * bin.share).toFixed(2)} % of the pixels`)));
  }
  svg.append(shape("line", { class: "axis dashed", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }));
  addCurves(chart, [{ points: used.map((bin) => [bin.confidence, bin.frequency]), label: "this network", paint: 0 }]);
  for (const bin of used) {
    svg.append(shape("circle", { class: "class-0", cx: x(bin.confidence), cy: y(bin.frequency), r: 4 },
      shape("title", {}, `predicted ${show(bin.confidence, false)}, found ${show(bin.frequency, false)}`)));
  }
  return svg;
}

/** Series of the wanted scores, training dashed. */
function curves(logged, wanted) {
  const parts = { train: "training", val: "validation" }, series = [];
  for (const score of wanted)
    for (const [part, label] of Object.entries(parts)) {
      const points = logged[`${part}/${score}`];
      if (points) series.push({ points, label, paint: part === "val" ? 1 : 0, dashed: part === "train" });
    }
  return series;
}

function learning(series, label, best) {
  const all = series.flatMap(({ points }) => points), values = all.map(([, y]) => y);
  const epochs = all.map(([x]) => x), low = label === "loss" ? Math.min(0, ...values) : 0;
  const chart = plot(`Learning curve, ${label}`, { from: Math.min(...epochs), to: Math.max(...epochs), label: "epoch" },
    { from: low, to: label === "loss" ? Math.max(...values) : 1, label }, 215);
  if (best) chart.svg.append(shape("line", { class: "axis dashed", x1: chart.x(best), x2: chart.x(best), y1: chart.box.top, y2: chart.box.bottom }));
  addCurves(chart, series);
  return chart.svg;
}

/** The cases that the summary names as worst, median and best, or those found here. */
function drawExamples(items, data, panes, open) {
  const sign = data.less_is_better.includes(data.main) ? -1 : 1;
  const rated = items.filter((item) => isNumber(item[data.main])).sort((a, b) => sign * (a[data.main] - b[data.main]) || a.index - b.index);
  const count = Math.min(5, Math.floor(rated.length / 3)), middle = Math.floor((rated.length - count) / 2);
  const named = (names) => names.map((name) => items.find((item) => item.id === name));
  const groups = data.extremes
    ? Object.entries(data.extremes).map(([title, names]) => ({ title: title[0].toUpperCase() + title.slice(1), items: named(names) }))
    : rated.length < 6 ? [{ title: "", items: rated }] : [
      { title: "Worst", items: rated.slice(0, count) },
      { title: "Median", items: rated.slice(middle, middle + count) },
      { title: "Best", items: rated.slice(rated.length - count) },
    ];
  const { label } = data.columns.find((column) => column.name === data.main);
  drawGallery(groups, panes, (item) => `${label} ${show(item[data.main], false)}`, open);
}

start();
