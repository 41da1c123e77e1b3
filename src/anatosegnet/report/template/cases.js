"use strict";
// The table of cases and the dialog that enlarges one.

const PRINTED = 24; // rows on paper, and rows whose pictures are there at once

/**
 * Sortable, filterable table.
 * items: [{index, id, class, …}]; columns: [{name, label, numeric, shown}]; panes: [{kind, label}];
 * main: the column that a range filters by at first; sort: {name, descending}.
 */
class CaseTable {
  constructor({ items, columns, panes, main, sort, dialog }) {
    Object.assign(this, { items, columns, panes, main, sort, dialog, rows: new Map(), chosen: new Map() });
    this.table = find("cases-table");
    this.watcher = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) this.draw(target);
    }, { rootMargin: "600px" });
    for (const id of ["search", "from", "to"]) find(id).oninput = () => this.refresh();
    find("range").onchange = () => this.refresh();
    find("clear").onclick = () => this.clear();
    this.table.tBodies[0].onkeydown = (event) => this.walk(event);
    this.reset(columns, items);
  }

  /** Put other columns and items in place, as when two other models are compared. */
  reset(columns, items) {
    const hidden = new Set(this.columns.filter((column) => column.shown === false).map((column) => column.name));
    this.columns = columns;
    this.items = items;
    this.rows.clear();
    for (const column of columns) {
      if (hidden.has(column.name)) column.shown = false;
      column.whole = column.numeric && items.every((item) => item[column.name] === null || Number.isInteger(item[column.name]));
    }
    find("range").replaceChildren(...columns.filter((column) => column.numeric)
      .map((column) => element("option", { value: column.name }, column.label)));
    find("range").value = this.main;
    find("choices").replaceChildren(...this.choices());
    find("columns").replaceChildren(...columns.slice(1).map((column) => element("label", {},
      element("input", { type: "checkbox", checked: column.shown !== false, onchange: (event) => {
        column.shown = event.target.checked;
        this.rows.clear();
        this.refresh();
      } }), " ", column.label)));
    this.refresh();
  }

  /** A menu for each text column of few values. */
  choices() {
    const menus = [];
    for (const column of this.columns.slice(1)) {
      const values = new Set(this.items.map((item) => item[column.name]).filter((value) => value !== ""));
      if (column.numeric || values.size < 2 || values.size > 12) continue;
      const select = element("select", { "data-column": column.name, onchange: () => {
        this.chosen.set(column.name, select.value);
        this.refresh();
      } }, element("option", { value: "" }, "all"), ...ordered(values).map((value) => element("option", { value }, value)));
      select.value = this.chosen.get(column.name) ?? "";
      menus.push(element("label", {}, `${column.label} `, select));
    }
    return menus;
  }

  clear() {
    for (const id of ["search", "from", "to"]) find(id).value = "";
    this.chosen.clear();
    for (const select of find("choices").querySelectorAll("select")) select.value = "";
    this.refresh();
  }

  /** Show only cases whose score lies in [from, to], and go there. */
  choose(name, from, to) {
    this.clear();
    find("range").value = name;
    find("from").value = +from.toPrecision(6);
    find("to").value = +to.toPrecision(6);
    this.refresh();
    find("cases").scrollIntoView();
  }

  /** The cases that pass the filters, in order. */
  select() {
    const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const bound = (id) => (find(id).value === "" ? null : find(id).valueAsNumber);
    const [name, from, to] = [find("range").value, bound("from"), bound("to")];
    const texts = this.columns.filter((column) => !column.numeric).map((column) => column.name);
    const passes = (item) => {
      const text = texts.map((column) => item[column]).join(" ").toLowerCase();
      if (!words.every((word) => text.includes(word))) return false;
      for (const [column, value] of this.chosen) if (value && item[column] !== value) return false;
      if (from === null && to === null) return true;
      return item[name] !== null && (from === null || item[name] >= from) && (to === null || item[name] <= to);
    };
    const sign = this.sort.descending ? -1 : 1, by = this.sort.name;
    const compare = (a, b) => {
      const [one, other] = [a[by] ?? null, b[by] ?? null];
      if (one === null || other === null) return (one === null) - (other === null); // absent: last
      return sign * (isNumber(one) ? one - other : collator.compare(one, other)) || a.index - b.index;
    };
    return this.items.filter(passes).sort(compare);
  }

  refresh() {
    this.selected = this.select();
    const shown = this.columns.filter((column) => column.shown !== false);
    const focused = document.activeElement?.dataset.sort;
    this.table.tHead.rows[0].replaceChildren(
      element("th", { scope: "col" }, element("span", { class: "hidden" }, "pictures")),
      ...shown.map((column) => this.header(column)));
    if (focused) this.table.querySelector(`[data-sort="${CSS.escape(focused)}"]`)?.focus();
    this.watcher.disconnect();
    const rows = this.selected.map((item) => this.row(item, shown));
    rows.forEach((row, at) => {
      row.classList.toggle("not-printed", at >= PRINTED);
      if (at < PRINTED) this.draw(row);
      else if (!row.drawn) this.watcher.observe(row);
    });
    this.table.tBodies[0].replaceChildren(...rows);
    const total = this.items.length, count = rows.length;
    find("count").textContent = count === total ? `${total} cases` : `${count} of ${total} cases`;
    const { name, descending } = this.sort;
    const label = this.columns.find((column) => column.name === name)?.label ?? name;
    find("printed").textContent = `${Math.min(count, PRINTED)} of ${count} cases are printed, sorted by ${label}, `
      + `${descending ? "descending" : "ascending"}; all of them are in scores.csv.`;
  }

  header(column) {
    const active = this.sort.name === column.name;
    const direction = active ? (this.sort.descending ? "descending" : "ascending") : "none";
    return element("th", { scope: "col", class: column.numeric ? "number" : null, "aria-sort": direction },
      element("button", { type: "button", "data-sort": column.name, onclick: () => {
        this.sort = { name: column.name, descending: active && !this.sort.descending };
        this.refresh();
      } }, column.label));
  }

  row(item, shown) {
    let row = this.rows.get(item.index);
    if (row) return row;
    const open = element("button", { type: "button", class: "thumbs", "aria-label": `Enlarge ${item.id}`,
      onclick: () => this.dialog.open(item, this.selected) },
      ...this.panes.map((pane) => element("img", { alt: "", title: pane.label, "data-kind": pane.kind })));
    row = element("tr", { "data-id": item.id }, element("td", {}, open), ...shown.map((column, at) => element(
      at ? "td" : "th", { class: column.numeric ? "number" : at ? null : "name-cell", scope: at ? null : "row", title: at ? null : item.id },
      show(item[column.name], column.numeric ? column.whole : undefined))));
    row.item = item;
    this.rows.set(item.index, row);
    return row;
  }

  /** Fill the pictures of a row. */
  draw(row) {
    if (row.drawn) return;
    row.drawn = true;
    this.watcher.unobserve(row);
    const sources = pictures(row.item.index);
    for (const image of row.querySelectorAll("img")) {
      if (sources[image.dataset.kind]) image.src = sources[image.dataset.kind];
      else image.removeAttribute("title");
    }
  }

  /** Arrow keys and j, k move from row to row. */
  walk(event) {
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    const row = event.target.closest("tr");
    if (!step || !row || event.ctrlKey || event.metaKey || event.altKey) return;
    const next = step > 0 ? row.nextElementSibling : row.previousElementSibling;
    next?.querySelector(".thumbs").focus();
    event.preventDefault();
  }

  focus(item) { this.rows.get(item.index)?.querySelector(".thumbs").focus(); }
}

/** Enlarges a case; walks through the list it was opened from. facts(item): [[name, text]]. */
class CaseDialog {
  constructor({ panes, facts, overlay }) {
    Object.assign(this, { panes, facts, overlay, list: [], at: 0 });
    this.node = find("enlarged");
    find("previous").onclick = () => this.go(-1);
    find("next").onclick = () => this.go(1);
    this.node.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, j: 1, ArrowLeft: -1, ArrowUp: -1, k: -1 }[event.key];
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.go(step);
    });
    this.node.addEventListener("click", (event) => { if (event.target === this.node) this.node.close(); });
    // the browser gives the focus back to the opener; in the table it follows the walk
    this.node.addEventListener("close", () => { if (this.opener?.closest("tbody")) this.onclose(this.list[this.at]); });
  }

  open(item, list) {
    this.list = list.includes(item) ? list : [item];
    this.at = this.list.indexOf(item);
    this.opener = document.activeElement;
    this.draw();
    this.node.showModal();
    find("next").focus();
  }

  go(step) {
    this.at = Math.max(0, Math.min(this.list.length - 1, this.at + step));
    this.draw();
  }

  draw() {
    const item = this.list[this.at];
    find("enlarged-title").textContent = item.id;
    find("enlarged-position").textContent = `${this.at + 1} of ${this.list.length}`;
    // disabled buttons would lose the focus, and with it the keys
    find("previous").setAttribute("aria-disabled", this.at === 0);
    find("next").setAttribute("aria-disabled", this.at === this.list.length - 1);
    find("enlarged-panes").replaceChildren(...this.panes().map((pane) => element("figure", {}, picture(item, pane), element("figcaption", {}, pane.label))));
    find("enlarged-facts").replaceChildren(...this.facts(item).map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))));
    const link = find("enlarged-overlay"), path = this.overlay(item);
    link.hidden = !path;
    if (path) link.href = path.split("/").map(encodeURIComponent).join("/");
  }
}

/** Buttons with the pictures of some cases. groups: [{title, items}]; caption(item): text. */
function drawGallery(groups, panes, caption, open) {
  find("gallery-note").textContent = `Pictures: ${panes.map((pane) => pane.label).join(", ")}.`;
  find("gallery").replaceChildren(...groups.filter(({ items }) => items.length).map(({ title, items }) => element("div", {},
    title ? element("h3", {}, title) : null,
    element("div", { class: "strip" }, ...items.map((item) => element("button",
      { type: "button", class: "example", "data-id": item.id, "aria-label": `Enlarge ${item.id}`, onclick: () => open(item, items) },
      element("div", { class: "pictures" }, ...panes.map((pane) => picture(item, pane, { title: pane.label }))),
      element("p", {}, element("span", { class: "score" }, caption(item)), ` ${item.id}`)))))));
}
