"use strict";
// Wires the comparison of several evaluations of the same cases.

function start() {
  startTheme();
  const data = JSON.parse(find("data").textContent);
  const cases = data.cases.map((item, index) => ({ ...item, index, class: item.class ?? "unknown" }));
  const classes = ordered(new Set(cases.map((item) => item.class)));
  find("classes").append(...key(classes));
  const runs = data.runs.map((name, number) => ({ name, number }));
  for (const id of ["first", "second"]) find(id).append(...runs.map(({ name, number }) => element("option", { value: number }, name)));
  find("second").value = Math.min(1, runs.length - 1);
  find("score").append(...data.scores.map(({ name, label }) => element("option", { value: name }, label)));
  find("score").value = data.main;

  if (data.risk.length) find("risk").append(riskCoverage(data.risk));
  let panes = [], pair = [], items = [], table = null;
  const facts = (item) => [
    ...data.columns.map((column) => [column.label, show(item[column.name])]),
    ...data.scores.map(({ label }, at) => [label, runs.map((run) => `${show(item.values[run.number][at], false)} ${run.name}`).join("; ")]),
  ];
  const dialog = new CaseDialog({ panes: () => panes, facts, overlay: () => "" });
  const open = (item, list) => dialog.open(item, list ?? (table.selected.includes(item) ? table.selected : items));
  dialog.onclose = (item) => table.focus(item);

  function draw() {
    const [first, second] = ["first", "second"].map((id) => runs[Number(find(id).value)]);
    const at = data.scores.findIndex(({ name }) => name === find("score").value);
    const { name: score, label } = data.scores[at];
    pair = [first, second];
    panes = [{ kind: "image", label: "image" }, { kind: "truth", label: "truth" },
      ...pair.flatMap(({ name, number }) => [{ kind: `error ${number}`, label: `errors of ${name}` }])];
    items = cases;
    for (const item of items) {
      const [a, b] = pair.map(({ number }) => item.values[number][at]);
      item.one = a;
      item.other = b;
      item.difference = isNumber(a) && isNumber(b) ? b - a : null;
      item.gap = item.difference === null ? null : Math.abs(item.difference);
    }
    const columns = [
      { name: "id", label: "case", numeric: false },
      ...data.columns,
      { name: "one", label: `${label}, ${first.name}`, numeric: true },
      { name: "other", label: `${label}, ${second.name}`, numeric: true },
      { name: "difference", label: "difference", numeric: true },
      { name: "gap", label: "size of difference", numeric: true },
    ];
    if (table) {
      table.panes = panes;
      table.reset(columns, items);
    } else table = new CaseTable({ items, columns, panes, main: "gap", sort: { name: "gap", descending: true }, dialog });
    const rated = items.filter((item) => item.difference !== null);
    if (!rated.length) return;
    const handlers = { pane: { kind: `error ${second.number}`, label: `errors of ${second.name}` }, open };
    find("pairs").replaceChildren(pairScatter(rated, first.name, second.name, label, classes, handlers));
    find("waterfall").replaceChildren(waterfall(rated, label, classes, handlers));
    find("summary").textContent = summarise(rated, first.name, second.name, label, data.less_is_better.includes(score));
    const most = [...rated].sort((a, b) => b.gap - a.gap || a.index - b.index).filter((item) => item.gap > 0);
    const better = data.less_is_better.includes(score) ? -1 : 1;
    drawGallery([
      { title: `${second.name} ahead`, items: most.filter((item) => better * item.difference > 0).slice(0, 8) },
      { title: `${first.name} ahead`, items: most.filter((item) => better * item.difference < 0).slice(0, 8) },
    ], panes, (item) => `${show(item.one, false)} → ${show(item.other, false)}`, open);
  }
  for (const id of ["first", "second", "score"]) find(id).onchange = draw;
  draw();
  document.documentElement.dataset.ready = Math.round(performance.now());
}

const lines = (item, label) => [`${label} ${show(item.one, false)} → ${show(item.other, false)}, ${item.class}`];

/** Score of the second model against that of the first. */
function pairScatter(items, first, second, label, classes, handlers) {
  const range = extent(items.flatMap((item) => [item.one, item.other]));
  const chart = plot(`${label} of ${second} against ${first}, ${items.length} images`,
    { ...range, label: `${label}, ${first}` }, { ...range, label: `${label}, ${second}` }, 400);
  chart.svg.append(shape("line", { class: "axis dashed", x1: chart.x(range.from), y1: chart.y(range.from), x2: chart.x(range.to), y2: chart.y(range.to) }));
  addPoints(chart, items.map((item) => ({ item, x: item.one, y: item.other, lines: lines(item, label) })), classes, handlers);
  return chart.svg;
}

/** Differences from the smallest to the largest, with their mean. */
function waterfall(items, label, classes, { pane, open }) {
  const sorted = [...items].sort((a, b) => a.difference - b.difference);
  const values = sorted.map((item) => item.difference), average = mean(values);
  const reach = Math.max(Math.abs(values[0]), Math.abs(values.at(-1)), 1e-3) * 1.05;
  const chart = plot(`Paired differences of ${label}, mean ${show(average, false)}`,
    { from: 0, to: sorted.length, label: "cases, sorted" }, { from: -reach, to: reach, label: `difference in ${label}` }, 400);
  const { svg, x, y } = chart, width = Math.max(x(1) - x(0) - 0.4, 0.6);
  sorted.forEach((item, at) => {
    const ends = [y(0), y(item.difference)];
    svg.append(shape("rect", {
      class: `bar class-${style(Math.max(classes.indexOf(item.class), 0))}`, "stroke-width": 0, "data-id": item.id,
      x: x(at), width, y: Math.min(...ends), height: Math.max(Math.abs(ends[0] - ends[1]), 0.8),
      onpointerenter: (event) => tip.show(item, lines(item, label), pane, event.clientX, event.clientY),
      onpointerleave: () => tip.hide(),
      onclick: () => { tip.hide(); open(item, sorted); },
    }));
  });
  svg.append(shape("line", { class: "axis", x1: x(0), x2: x(sorted.length), y1: y(0), y2: y(0) }));
  svg.append(shape("line", { class: "mean dashed", x1: x(0), x2: x(sorted.length), y1: y(average), y2: y(average) }));
  // where no bars are: above the falls on the left, or below the rises on the right
  const place = average > 0 ? { x: x(0) + 6, y: y(average) - 6 } : { x: x(sorted.length), y: y(average) + 16, "text-anchor": "end" };
  svg.append(shape("text", { class: "title", ...place }, `mean ${average > 0 ? "+" : ""}${show(average, false)}`));
  return svg;
}

function summarise(items, first, second, label, less) {
  const sign = less ? -1 : 1, count = (test) => items.filter((item) => test(sign * item.difference)).length;
  const average = mean(items.map((item) => item.difference));
  return `${label} of ${second} minus ${first}: mean ${average > 0 ? "+" : ""}${show(average, false)}; `
    + `${second} is ahead on ${count((d) => d > 0)} of ${items.length} cases, ${first} on ${count((d) => d < 0)}; they are equal on ${count((d) => d === 0)}.`;
}

start();
