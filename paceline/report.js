// The script of a report: draws the figures that are described in the page, and lets readers sort, switch and zoom.
// A text from the page goes into elements by textContent only, and into plotly as Python has escaped it.
"use strict";
(() => {
  const documents = JSON.parse(document.getElementById("plots").textContent);
  const drawings = [...document.querySelectorAll(".drawing")];
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
  const axis = { gridcolor: "#e3e3e3", zerolinecolor: "#bbbbbb", linecolor: "#888888", automargin: true };
  const common = {
    paper_bgcolor: "#ffffff",
    plot_bgcolor: "#ffffff",
    font: { family: "system-ui, sans-serif", size: 12, color: "#1a1a1a" },
    margin: { l: 52, r: 14, t: 12, b: 44 },
    hovermode: "closest",
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
  };

  /** The layout of a document, on top of what all figures have in common. */
  function whole(layout) {
    const made = { ...common, ...layout };
    for (const name of ["xaxis", "yaxis"]) made[name] = { ...axis, ...layout[name] };
    return made;
  }

  // Curves: all of them are drawn against the same thing.
  function against(name) {
    drawings.forEach((drawing, number) => {
      const { x, titles } = documents[number];
      if (x) Plotly.update(drawing, { x: x[name] }, { "xaxis.title.text": titles[name], "xaxis.autorange": true });
    });
  }

  // Timelines.
  const FEW = 4000; // bars in view that are drawn one by one,
  const WIDE = 3; // if there are so many pixels for each
  const CELLS = 8000; // where there are more: slices times rows
  const timelines = [];

  function decoded(text, Kind) {
    return new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
  }

  function element(name, text, more) {
    return Object.assign(document.createElement(name), { textContent: text, ...more });
  }

  /** Seconds for people. */
  function told(seconds) {
    const [unit, scale] = seconds < 1e-6 ? ["ns", 1e9] : seconds < 1e-3 ? ["us", 1e6] : seconds < 1 ? ["ms", 1e3] : ["s", 1];
    return `${Number((seconds * scale).toPrecision(4))} ${unit}`;
  }

  /** The first place in [from, to) whose value is above x; `to` where there is none. */
  function above(values, x, from, to) {
    while (from < to) {
      const middle = (from + to) >> 1;
      if (values[middle] > x) to = middle;
      else from = middle + 1;
    }
    return from;
  }

  class Timeline {
    constructor(drawing, said) {
      this.drawing = drawing;
      this.said = said;
      this.starts = decoded(said.starts, Float64Array);
      this.stops = decoded(said.seconds, Float32Array);
      this.stops = Float64Array.from(this.stops, (seconds, place) => this.starts[place] + seconds);
      this.names = decoded(said.places, Uint16Array);
      this.filled = Float32Array.from(decoded(said.shares, Uint16Array), (share) => share / 65535);
      this.rounds = decoded(said.rounds, Float64Array);
      this.window = [said.start, said.stop];
      let first = 0;
      this.rows = said.rows.map(({ row, band, count, label }) => {
        const top = row + 0.08 + (0.84 * band) / said.bands;
        const made = { row, label, first, last: first + count, top, bottom: top + 0.8 / said.bands };
        first += count;
        return made;
      });
      this.draw();
      this.tools();
      drawing.on("plotly_relayout", (event) => {
        if (event["xaxis.autorange"]) this.zoom(said.start, said.stop);
        else if (event["xaxis.range[0]"] !== undefined) this.zoom(event["xaxis.range[0]"], event["xaxis.range[1]"]);
        else if (event["xaxis.range"]) this.zoom(...event["xaxis.range"]);
      });
      this.tip = element("div", "", { className: "tip", hidden: true });
      drawing.parentElement.append(this.tip);
      drawing.addEventListener("pointermove", (event) => this.point(event));
      drawing.addEventListener("pointerdown", (event) => this.point(event));
      drawing.addEventListener("pointerleave", () => (this.tip.hidden = true));
    }

    /** The places of a row's bars in a window. */
    within(row, start, stop) {
      return [above(this.stops, start, row.first, row.last), above(this.starts, stop, row.first, row.last)];
    }

    /** Show this window, and the same one in the others where readers want it. */
    zoom(start, stop, alone = false) {
      const most = this.said.stop - this.said.start;
      const length = Math.min(Math.max(stop - start, most * 1e-9), most);
      const from = Math.min(Math.max(start, this.said.start), this.said.stop - length);
      this.window = [from, from + length];
      this.draw();
      if (!alone && this.together?.checked) {
        for (const other of timelines) if (other !== this) other.zoom(start, stop, true);
      }
    }

    /** Show a round, or the nearest one that there is. */
    show(round) {
      const place = Math.min(Math.max(1, round), this.rounds.length) - 1;
      if (place >= 0) this.zoom(place ? this.rounds[place - 1] : 0, this.rounds[place], true);
    }

    draw() {
      const [start, stop] = this.window;
      const areas = this.said.legends.map(() => ({ x: [], y: [] }));
      const seen = this.rows.map((row) => this.within(row, start, stop));
      const counts = seen.map(([from, to]) => to - from);
      const few = counts.reduce((sum, count) => sum + count, 0) <= FEW && Math.max(...counts) * WIDE <= this.drawing.clientWidth;
      this.slice = few ? 0 : (stop - start) / Math.max(60, Math.min(700, Math.floor(CELLS / this.rows.length)));
      this.rows.forEach((row, number) => {
        if (few) this.bars(row, seen[number], areas);
        else this.shares(row, start, stop, areas);
      });
      const traces = areas.map(({ x, y }, number) => {
        const [name, color] = this.said.legends[number];
        const line = { color, width: few ? 0.6 : 0 };
        // A legend shows what is in view.
        return { x, y, name, mode: "lines", fill: "toself", fillcolor: color, line, hoverinfo: "skip", showlegend: x.length > 0 };
      });
      traces.push(this.borders(start, stop), ...this.marked());
      const layout = whole({ ...this.said.layout, shapes: this.shapes(), uirevision: "kept", dragmode: "zoom" });
      layout.xaxis = { ...layout.xaxis, range: [start, stop], autorange: false };
      layout.margin = { ...common.margin, t: 8 };
      Plotly.react(this.drawing, traces, layout, config);
    }

    /** The part of its row that a bar fills. */
    share(place) {
      return this.filled.length ? this.filled[place] : 1;
    }

    /** A box for each bar. Those of a slice lie one above the other. */
    bars(row, [from, to], areas) {
      let low = row.bottom;
      for (let place = from; place < to; place++) {
        const { x, y } = areas[this.said.looks[this.names[place]]];
        const [a, b] = [this.starts[place], this.stops[place]];
        if (place === from || a !== this.starts[place - 1]) low = row.bottom;
        const high = low - this.share(place) * (row.bottom - row.top);
        x.push(a, b, b, a, null);
        y.push(high, high, low, low, null);
        low = high;
      }
    }

    /** Seconds of each legend in each slice of a row: [slice][legend]. */
    covered(row, start, stop, count) {
      const width = (stop - start) / count;
      const found = Array.from({ length: count }, () => new Float64Array(this.said.legends.length));
      const [from, to] = this.within(row, start, stop);
      for (let place = from; place < to; place++) {
        const look = this.said.looks[this.names[place]];
        const [a, b] = [Math.max(this.starts[place], start), Math.min(this.stops[place], stop)];
        const last = Math.min(count - 1, Math.floor((b - start) / width));
        for (let slice = Math.max(0, Math.floor((a - start) / width)); slice <= last; slice++) {
          const inside = Math.min(b, start + (slice + 1) * width) - Math.max(a, start + slice * width);
          found[slice][look] += Math.max(0, inside) * this.share(place);
        }
      }
      return found;
    }

    /** In each slice the share of each legend, one above the other: for each legend steps along the row. */
    shares(row, start, stop, areas) {
      const count = Math.round((stop - start) / this.slice);
      const found = this.covered(row, start, stop, count);
      const height = row.bottom - row.top;
      const floor = new Float64Array(count).fill(row.bottom);
      areas.forEach(({ x, y }, look) => {
        let back = [];
        const close = () => {
          for (const [a, b] of back.reverse()) (x.push(a), y.push(b));
          if (back.length) (x.push(null), y.push(null));
          back = [];
        };
        for (let slice = 0; slice < count; slice++) {
          const share = Math.min(1, found[slice][look] / this.slice);
          if (share < 1e-4) {
            close();
            continue;
          }
          const [a, b, low] = [start + slice * this.slice, start + (slice + 1) * this.slice, floor[slice]];
          floor[slice] = low - share * height;
          x.push(a, b);
          y.push(floor[slice], floor[slice]);
          back.push([a, low], [b, low]);
        }
        close();
      });
    }

    /** Thin lines where rounds end, if they are few. */
    borders(start, stop) {
      const from = above(this.rounds, start, 0, this.rounds.length);
      const to = above(this.rounds, stop, 0, this.rounds.length);
      const [x, y] = [[], []];
      if (to - from <= 60) {
        for (const end of this.rounds.slice(from, to)) (x.push(end, end, null), y.push(0, this.said.workers.length, null));
      }
      return { x, y, mode: "lines", line: { color: "#444444", width: 0.5, dash: "dot" }, hoverinfo: "skip", showlegend: false };
    }

    /** Faults and recoveries behind what they hit, and their entries in the legend. */
    shapes() {
      return this.said.marks.map(({ row, start, stop, color }) => ({
        type: "rect", x0: start, x1: stop, y0: row ?? 0, y1: row === null ? this.said.workers.length : row + 1,
        fillcolor: color, opacity: 0.35, line: { color, width: 1.5 }, layer: "below",
      }));
    }

    marked() {
      const [start, stop] = this.window;
      const seen = this.said.marks.filter((mark) => mark.start <= stop && start <= mark.stop);
      const names = new Map(seen.map(({ legend, color }) => [legend, color]));
      return [...names].map(([name, color]) => (
        { x: [null], y: [null], name, mode: "markers", marker: { symbol: "square", size: 11, color, opacity: 0.5 }, hoverinfo: "skip" }
      ));
    }

    /** Buttons, for those without a mouse, and a way to go to a round. */
    tools() {
      const bar = element("div", "", { className: "tools" });
      const button = (text, title, change) => {
        const made = element("button", text, { type: "button", title });
        made.addEventListener("click", () => {
          const [start, stop] = this.window;
          this.zoom(...change(start, stop, stop - start));
        });
        bar.append(made);
      };
      button("+", "zoom in", (start, stop, length) => [start + length / 4, stop - length / 4]);
      button("\u2212", "zoom out", (start, stop, length) => [start - length / 2, stop + length / 2]);
      button("\u2190", "earlier", (start, stop, length) => [start - length / 2, stop - length / 2]);
      button("\u2192", "later", (start, stop, length) => [start + length / 2, stop + length / 2]);
      button("whole run", "show the whole run", () => [this.said.start, this.said.stop]);
      if (this.rounds.length) {
        const label = element("label", "round ");
        const input = element("input", "", { type: "number", min: 1, max: this.rounds.length });
        input.addEventListener("change", () => {
          for (const each of this.together?.checked ? timelines : [this]) each.show(Math.round(input.value));
        });
        label.append(input);
        bar.append(label);
      }
      if (documents.filter((each) => each.timeline).length > 1) {
        const label = element("label", "");
        this.together = element("input", "", { type: "checkbox", checked: true });
        label.append(this.together, " zoom all timelines");
        bar.append(label);
      }
      this.drawing.before(bar);
    }

    /** What is under the pointer, in words. */
    point(event) {
      const box = this.drawing.querySelector(".nsewdrag")?.getBoundingClientRect();
      const [start, stop] = this.window;
      const across = box ? (event.clientX - box.left) / box.width : -1;
      const down = box ? ((event.clientY - box.top) / box.height) * this.said.workers.length : -1;
      const row = this.rows.find((each) => each.top <= down && down <= each.bottom);
      this.tip.hidden = !row || across < 0 || across > 1;
      if (this.tip.hidden) return;
      const seconds = start + across * (stop - start);
      this.tip.textContent = [row.label, ...this.under(row, seconds), ...this.around(row, seconds)].join("\n");
      const frame = this.drawing.parentElement.getBoundingClientRect();
      const left = event.clientX - frame.left + 14;
      this.tip.style.left = `${Math.max(0, Math.min(left, frame.width - this.tip.offsetWidth - 4))}px`;
      this.tip.style.top = `${event.clientY - frame.top + 14}px`;
    }

    under(row, seconds) {
      if (this.slice) {
        const [start] = this.window;
        const from = start + Math.floor((seconds - start) / this.slice) * this.slice;
        const [shares] = this.covered(row, from, from + this.slice, 1);
        const parts = [...shares].map((share, look) => [share / this.slice, this.said.legends[look][0]]);
        const found = parts.filter(([share]) => share >= 0.0005).map(([share, name]) => `${name} ${(100 * share).toFixed(1)} %`);
        return [`${told(this.slice)} from ${told(from)}`, ...found];
      }
      const [place, to] = this.within(row, seconds, seconds);
      if (place >= to) return ["nothing"];
      if (this.share(place) < 1) {
        const parts = Array.from({ length: to - place }, (_, more) => place + more);
        const each_told = parts.map((each) => `${this.said.names[this.names[each]]} ${(100 * this.share(each)).toFixed(1)} %`);
        return [`of ${told(this.stops[place] - this.starts[place])}:`, ...each_told];
      }
      const name = this.said.names[this.names[place]];
      return [`${name}: ${told(this.stops[place] - this.starts[place])}`, `from ${Number(this.starts[place].toPrecision(9))} s`];
    }

    around(row, seconds) {
      const round = above(this.rounds, seconds, 0, this.rounds.length);
      const here = this.said.marks.filter((mark) => mark.start <= seconds && seconds <= mark.stop && (mark.row ?? row.row) === row.row);
      return [...(round < this.rounds.length ? [`round ${round + 1}`] : []), ...here.map((mark) => mark.name)];
    }
  }

  // Points of a table, whose axes readers choose.
  function plain(value) {
    return String(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  }

  function points(drawing, { columns, keys, x, y, by, first, looks }) {
    const bar = element("div", "", { className: "tools" });
    const choices = [["across", x], ["up", y], ["colours", by]].map(([told, names], place) => {
      const label = element("label", `${told} `);
      const choice = element("select", "");
      choice.append(...names.map((name) => element("option", name || "none", { value: name, selected: name === first[place] })));
      choice.addEventListener("change", draw);
      label.append(choice);
      bar.append(label);
      return choice;
    });
    drawing.before(bar);
    function draw() {
      const [across, up, group] = choices.map((choice) => choice.value);
      const rows = columns[up].map((_, row) => row).filter((row) => typeof columns[up][row] === "number" && columns[across][row] !== null);
      const groups = group ? [...new Set(columns[group])] : [null];
      const traces = groups.map((value, number) => {
        const own = group ? rows.filter((row) => columns[group][row] === value) : rows;
        const [color, symbol] = looks[number % looks.length];
        return {
          x: own.map((row) => columns[across][row]),
          y: own.map((row) => columns[up][row]),
          text: own.map((row) => keys.map((key) => plain(`${key}: ${columns[key][row]}`)).join("<br>")),
          name: plain(`${group}: ${value}`),
          mode: "markers",
          marker: { color, symbol, size: 8 },
          hovertemplate: "%{text}<br>%{y}<extra></extra>",
          showlegend: group !== "",
        };
      });
      const [xaxis, yaxis] = [across, up].map((name) => ({ title: { text: plain(name) } }));
      Plotly.react(drawing, traces, whole({ xaxis, yaxis: { ...yaxis, rangemode: "tozero" } }), config);
    }
    draw();
  }

  // Tables: a click on a heading sorts by it, numbers by their value.
  function sortable(table) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = element("button", heading.textContent, { type: "button" });
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const upward = heading.getAttribute("aria-sort") !== "ascending";
        headings.forEach((each) => each.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", upward ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows];
        const key = (row) => {
          const cell = row.cells[column];
          return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
        };
        const compare = (a, b) => {
          const [one, other] = [key(a), key(b)];
          if (typeof one === "number" && typeof other === "number") return upward ? one - other : other - one;
          if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1; // texts and empty cells come last
          return (upward ? 1 : -1) * one.localeCompare(other, "en", { numeric: true });
        };
        table.tBodies[0].append(...rows.sort(compare));
      });
    });
  }

  drawings.forEach((drawing, number) => {
    const { data, layout, timeline, table } = documents[number];
    if (table) points(drawing, table);
    else if (timeline) timelines.push(new Timeline(drawing, timeline));
    else Plotly.newPlot(drawing, data, whole(layout), config);
  });
  document.querySelectorAll("input[name=against]").forEach((choice) => {
    choice.addEventListener("change", () => against(choice.value));
  });
  document.querySelectorAll("table.sortable").forEach(sortable);
  const resized = (paper) => {
    document.body.classList.toggle("paper", paper);
    drawings.forEach((drawing) => Plotly.Plots.resize(drawing));
  };
  window.addEventListener("beforeprint", () => resized(true));
  window.addEventListener("afterprint", () => resized(false));
})();
