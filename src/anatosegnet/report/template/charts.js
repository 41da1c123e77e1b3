"use strict";
// Charts as SVG. Scales map data to a view box; colours come from style.css.

const WIDTH = 560, HEIGHT = 330, MARGIN = { left: 58, right: 16, top: 26, bottom: 46 };
const MARKS = [
  (x, y) => shape("circle", { cx: x, cy: y, r: 4.2 }),
  (x, y) => shape("path", { d: `M${x} ${y - 5.2}l5 8.8h-10z` }),
  (x, y) => shape("rect", { x: x - 3.7, y: y - 3.7, width: 7.4, height: 7.4 }),
  (x, y) => shape("path", { d: `M${x} ${y - 5.2}l5.2 5.2l-5.2 5.2l-5.2 -5.2z` }),
  (x, y) => shape("path", { d: `M${x - 4.5} ${y + 4}l4.5 -8l4.5 8l-4.5 -3z` }),
];
const style = (number) => Math.min(number, MARKS.length - 1);

/** Round ticks that cover [from, to]. */
function ticks(from, to, count = 6) {
  const rough = (to - from) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const result = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i++) result.push(+(i * step).toPrecision(12));
  return result;
}

/** 1, 2, 5, 10, … inside [from, to]; only powers of ten where that would crowd. */
function logTicks(from, to) {
  const factors = Math.log10(to / from) > 3 ? [1] : [1, 2, 5], result = [];
  for (let power = Math.floor(Math.log10(from)); power <= Math.log10(to); power++)
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (value >= from * 0.999 && value <= to * 1.001) result.push(+value.toPrecision(6));
    }
  return result;
}

/** Where a score's axis goes: 0 to 1 for shares, else from 0 to beyond the largest value. */
function extent(values) {
  const low = Math.min(...values), high = Math.max(...values);
  if (low >= 0 && high <= 1) return { from: 0, to: 1 };
  const marks = ticks(Math.min(low, 0), high), step = marks[1] - marks[0];
  return { from: Math.min(0, marks[0] - (marks[0] > low ? step : 0)), to: marks.at(-1) + (marks.at(-1) < high ? step : 0) };
}

/**
 * An empty plot with axes.
 * x and y: {from, to, label, log, ticks, format}; foot: room kept between the plot and its ticks.
 * Returns {svg, x, y, box}; x() and y() map values, box holds the plot's edges.
 */
function plot(label, x, y, height = HEIGHT, foot = 0) {
  const base = height - MARGIN.bottom;
  const box = { left: MARGIN.left, right: WIDTH - MARGIN.right, top: MARGIN.top, bottom: base - foot };
  const scale = (axis, start, end) => {
    const f = axis.log ? Math.log10 : (value) => value;
    return (value) => start + ((f(value) - f(axis.from)) / (f(axis.to) - f(axis.from) || 1)) * (end - start);
  };
  const toX = scale(x, box.left, box.right), toY = scale(y, box.bottom, box.top);
  const svg = shape("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label });
  for (const value of y.ticks ?? (y.log ? logTicks(y.from, y.to) : ticks(y.from, y.to, 5))) {
    svg.append(shape("line", { class: "grid", x1: box.left, x2: box.right, y1: toY(value), y2: toY(value) }));
    svg.append(shape("text", { x: box.left - 7, y: toY(value) + 4, "text-anchor": "end" }, (y.format ?? String)(value)));
  }
  for (const value of x.ticks ?? (x.log ? logTicks(x.from, x.to) : ticks(x.from, x.to))) {
    svg.append(shape("line", { class: foot ? "grid" : "axis", x1: toX(value), x2: toX(value), y1: box.bottom, y2: base + 4 }));
    svg.append(shape("text", { x: toX(value), y: base + 18, "text-anchor": "middle" }, (x.format ?? ((v) => v.toLocaleString("en")))(value)));
  }
  svg.append(shape("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  svg.append(shape("text", { class: "title", x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, x.label));
  svg.append(shape("text", { class: "title", x: 4, y: 13 }, y.label));
  return { svg, x: toX, y: toY, box };
}

/** The names of the classes with their marks, as HTML. */
function key(classes) {
  return classes.map((name, number) => {
    const mark = MARKS[style(number)](7, 7);
    mark.setAttribute("class", `class-${style(number)}`);
    return element("span", { class: "key" }, shape("svg", { viewBox: "0 0 14 14", "aria-hidden": "true" }, mark), name);
  });
}

/** Stacked bars by class, mean and interval, and a box per class below. */
function histogram({ items, name, label, classes, interval, select }) {
  const rated = items.filter((item) => isNumber(item[name]));
  const values = rated.map((item) => item[name]);
  const range = extent(values), bins = 20, step = (range.to - range.from) / bins;
  const place = (value) => Math.min(bins - 1, Math.floor((value - range.from) / step + 1e-9));
  const counts = classes.map(() => Array(bins).fill(0));
  for (const item of rated) counts[classes.indexOf(item.class)][place(item[name])]++;
  const totals = counts[0].map((_, bin) => counts.reduce((sum, row) => sum + row[bin], 0));
  const top = Math.max(...totals, 1), foot = 22 * classes.length + 8;
  const { svg, x, y, box } = plot(`Histogram of ${label}, ${values.length} images, mean ${show(mean(values), false)}`,
    { ...range, label }, { from: 0, to: top, label: "images", ticks: ticks(0, top, 5).filter(Number.isInteger) }, HEIGHT + foot - 18, foot);
  if (interval) svg.append(shape("rect", { class: "band", x: x(interval[0]), width: x(interval[1]) - x(interval[0]), y: box.top, height: box.bottom - box.top }));
  for (let bin = 0; bin < bins; bin++) {
    const from = range.from + bin * step;
    let below = 0;
    counts.forEach((row, number) => {
      if (!row[bin]) return;
      const bar = shape("rect", {
        class: `bar class-${style(number)}`, x: x(from) + 0.5, width: x(from + step) - x(from) - 1,
        y: y(below + row[bin]), height: y(below) - y(below + row[bin]),
        onclick: () => select(from, from + step),
      }, shape("title", {}, `${show(from)} to ${show(from + step)}: ${row[bin]} ${classes[number]}`));
      svg.append(bar);
      below += row[bin];
    });
  }
  svg.append(shape("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  svg.append(shape("line", { class: "mean", x1: x(mean(values)), x2: x(mean(values)), y1: box.top - 6, y2: box.bottom }));
  classes.forEach((group, number) => {
    const own = rated.filter((item) => item.class === group).map((item) => item[name]);
    if (!own.length) return;
    const centre = box.bottom + 16 + 22 * number, paint = `class-${style(number)}`;
    const [p5, q1, median, q3, p95] = [0.05, 0.25, 0.5, 0.75, 0.95].map((q) => x(quantile(own, q)));
    svg.append(
      shape("line", { class: paint, x1: p5, x2: p95, y1: centre, y2: centre, "stroke-width": 1.5 }),
      shape("rect", { class: paint, x: q1, width: Math.max(q3 - q1, 1), y: centre - 6, height: 12, "fill-opacity": 0.45 },
        shape("title", {}, `${group}: median ${show(quantile(own, 0.5), false)}, ${own.length} images`)),
      shape("line", { class: "mean", x1: median, x2: median, y1: centre - 7, y2: centre + 7 }));
  });
  return svg;
}

/** Points for cases: hover tells, click opens, arrow keys walk. points: [{item, x, y, lines}]. */
function addPoints(chart, points, classes, { pane, open }) {
  const { svg } = chart;
  let current = -1;
  const nodes = points.map(({ item, x, y }, at) => {
    const number = style(Math.max(classes.indexOf(item.class), 0));
    const node = MARKS[number](chart.x(x), chart.y(y));
    build(node, {
      class: `mark class-${number}`, "data-id": item.id,
      onpointerenter: (event) => { choose(at, event.clientX, event.clientY); },
      onpointerleave: () => { tip.hide(); nodes[at].classList.remove("on"); },
      onclick: () => { tip.hide(); open(item); },
    }, []);
    return node;
  });
  function choose(at, clientX, clientY) {
    nodes[current]?.classList.remove("on");
    current = at;
    nodes[at].classList.add("on");
    if (clientX === undefined) {
      const place = nodes[at].getBoundingClientRect();
      [clientX, clientY] = [place.right, place.bottom];
    }
    tip.show(points[at].item, points[at].lines, pane, clientX, clientY);
  }
  svg.append(shape("g", {}, ...nodes));
  svg.setAttribute("tabindex", "0");
  svg.setAttribute("role", "application");
  svg.setAttribute("aria-roledescription", "scatter plot; arrow keys walk through the points, Enter enlarges");
  const order = points.map((_, at) => at).sort((a, b) => points[a].x - points[b].x);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && order.length) {
      const place = order.indexOf(current) + step;
      choose(order[(place + order.length) % order.length]);
      event.preventDefault();
    } else if ((event.key === "Enter" || event.key === " ") && current >= 0) {
      tip.hide();
      open(points[current].item);
      event.preventDefault();
    }
  });
  svg.addEventListener("blur", () => { tip.hide(); nodes[current]?.classList.remove("on"); });
}

/** Curves: series [{points: [[x, y]], label, paint, dashed}], with names at the right end. */
function addCurves(chart, series) {
  for (const { points, paint, dashed } of series) {
    const path = points.map(([x, y], at) => `${at ? "L" : "M"}${chart.x(x).toFixed(1)} ${chart.y(y).toFixed(1)}`).join("");
    chart.svg.append(shape("path", { class: `curve class-${paint}${dashed ? " dashed" : ""}`, style: "fill: none", d: path }));
  }
  series.forEach(({ label, paint, dashed }, at) => {
    const left = chart.box.right - 118 * (series.length - at);
    chart.svg.append(
      shape("line", { class: `curve class-${paint}${dashed ? " dashed" : ""}`, x1: left, x2: left + 24, y1: 9, y2: 9 }),
      shape("text", { x: left + 30, y: 13 }, label));
  });
}

/** The mean IoU of the surest images against their share: series [{points: [[coverage, IoU]], label}]. */
function riskCoverage(series) {
  const values = series.flatMap(({ points }) => points.map(([, iou]) => iou));
  const marks = ticks(Math.min(...values), 1, 5), step = marks[1] - marks[0];
  const from = Math.max(0, marks[0] > Math.min(...values) ? marks[0] - step : marks[0]);
  const chart = plot("Risk and coverage", { from: 0, to: 1, label: "coverage: share of the images that is kept, the surest first", format: (v) => `${Math.round(100 * v)} %` },
    { from, to: 1, label: "mean IoU of those" });
  for (const [number, { points }] of series.entries()) {
    const whole = points.at(-1)[1], paint = style(number);
    chart.svg.append(shape("line", { class: `curve class-${paint} dashed`, x1: chart.x(0), x2: chart.x(1), y1: chart.y(whole), y2: chart.y(whole) }));
    const path = points.map(([x, y], at) => `${at ? "L" : "M"}${chart.x(x).toFixed(1)} ${chart.y(y).toFixed(1)}`).join("");
    chart.svg.append(shape("path", { class: `curve class-${paint}`, style: "fill: none", d: path }, shape("title", {}, series[number].label)));
    const top = chart.box.top + 14 + 18 * number, end = chart.box.right; // where no curve that falls is
    chart.svg.append(
      shape("line", { class: `curve class-${paint}`, x1: end - 24, x2: end, y1: top - 4, y2: top - 4 }),
      shape("text", { x: end - 30, y: top, "text-anchor": "end" }, series[number].label));
  }
  return chart.svg;
}
