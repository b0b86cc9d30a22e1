"use strict";
// Draws the figures of the report from the JSON beside it, sorts and saves its tables, switches light and dark.
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const shown = new Map(); // id -> {figure, box, choice, width}
  const CONFIG = { displayModeBar: false, responsive: false, scrollZoom: false, doubleClick: "reset", showTips: false };
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const MARKS = ["circle", "diamond", "square", "triangle-up", "cross", "star"];
  let printing = false;

  // ---- look

  const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  // names come from data sets: Plotly reads a little HTML in texts, so they are made plain
  const plain = (words) => String(words).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  // names of one taxonomy often begin alike: the middle goes
  const short = (words, most) => plain(words.length > most ? `${words.slice(0, Math.ceil(0.6 * (most - 1)))}…${words.slice(words.length - Math.floor(0.4 * (most - 1)))}` : words);
  const runColor = (i) => style("--run" + (i % 6));
  const isDark = () => style("color-scheme") === "dark";
  // thresholds: light to dark, told apart by dashes, too
  const shade = (i, n) => (isDark() ? ["#fde68a", "#7dd3fc", "#56b4e9", "#c4b5fd"] : ["#c98a00", "#009e73", "#0072b2", "#6d3f98"])[n > 1 ? i % 4 : 2];

  function look(width, height, more) {
    const ink = style("--ink"), line = style("--line");
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, fixedrange: true, title: { standoff: 8 } };
    return {
      width, height, autosize: false, dragmode: false, hovermode: "closest", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif', size: 12, color: ink },
      margin: { l: 8, r: 12, t: 12, b: 36 },
      hoverlabel: { bgcolor: style("--paper"), bordercolor: line, font: { color: ink }, align: "left", namelength: -1 },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { color: ink } },
      axis, ...more,
    };
  }
  const axisOf = (layout, more) => ({ ...layout.axis, ...more, title: { ...layout.axis.title, ...(more.title || {}) } });
  const number = (value, digits = 4) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−"));

  // ---- charts: each gives [traces, layout]

  const CHARTS = {
    dots(data, choice, width) {
      const view = data.views[choice.view || 0];
      const labels = view.labels || data.labels, n = view.series.length;
      const layout = look(width, 70 + labels.length * Math.max(20, 13 * n) + (n > 1 ? 26 : 0));
      const traces = view.series.map((series, s) => {
        const color = runColor(data.zero ? s + 1 : s);
        const shift = n > 1 ? (s - (n - 1) / 2) * (0.62 / n) : 0;
        const tones = series.tones || [];
        return {
          type: "scatter", mode: "markers", cliponaxis: false, name: short(series.name, 40), showlegend: n > 1, x: series.value, y: labels.map((_, i) => i + shift),
          error_x: {
            type: "data", symmetric: false, thickness: 1.6, width: 3, color,
            array: series.high.map((high, i) => (high === null ? 0 : high - series.value[i])),
            arrayminus: series.low.map((low, i) => (low === null ? 0 : series.value[i] - low)),
          },
          marker: { size: 8, symbol: MARKS[s % 6], color: series.value.map((_, i) => (data.zero && !tones[i] ? style("--paper") : color)), line: { color, width: 1.8 } },
          text: labels.map((label, i) => `<b>${plain(label)}</b><br>${n > 1 ? plain(series.name) + ": " : ""}${number(series.value[i])}` +
            (series.low[i] === null ? "" : `<br>${number(series.low[i])} to ${number(series.high[i])}`)),
          hovertemplate: "%{text}<extra></extra>",
        };
      });
      const shapes = data.zero ? [{ type: "line", xref: "x", yref: "paper", x0: 0, x1: 0, y0: 0, y1: 1, line: { color: style("--soft"), width: 1.2 } }]
        : view.series.flatMap((series, s) => (series.whole === undefined || series.whole === null ? [] : [{
          type: "line", xref: "x", yref: "paper", x0: series.whole, x1: series.whole, y0: 0, y1: 1, layer: "below", line: { color: runColor(s), width: 1, dash: "dot" } }]));
      layout.xaxis = axisOf(layout, { title: { text: short(view.axis, 60) }, zeroline: false, rangemode: data.zero ? "normal" : "nonnegative" });
      const ends = view.series.flatMap((series) => [...series.value, ...series.low, ...series.high]).filter((value) => value !== null);
      if (!data.zero && new Set(ends).size === 1) layout.xaxis.range = [0, 1.1 * ends[0] || 1]; // one number alone would stand in the middle of nowhere
      layout.yaxis = axisOf(layout, {
        tickmode: "array", tickvals: labels.map((_, i) => i), ticktext: labels.map((label) => short(label, width < 500 ? 16 : 34)),
        range: [labels.length - 0.4, -0.6], zeroline: false, showgrid: true, ticklabelstandoff: 6, // a dot at the very left
      });
      return [traces, { ...layout, shapes }];
    },

    bars(data, choice, width) {
      const view = data.views[choice.view || 0], n = view.series.length;
      const layout = look(width, 70 + data.labels.length * Math.max(19, 12 * n) + (n > 1 ? 26 : 0), { barmode: "group", bargap: 0.28 });
      const traces = view.series.map((series, s) => ({
        type: "bar", orientation: "h", name: short(series.name, 40), showlegend: n > 1, x: series.value, y: data.labels.map((_, i) => i), marker: { color: runColor(s) },
        text: data.labels.map((label, i) => `<b>${plain(label)}</b><br>${n > 1 ? plain(series.name) + ": " : ""}+${number(series.value[i])}`.replace("+−", "−")),
        textposition: "none", hovertemplate: "%{text}<extra></extra>",
      }));
      layout.xaxis = axisOf(layout, { title: { text: plain(view.axis) }, zeroline: true });
      layout.yaxis = axisOf(layout, {
        tickmode: "array", tickvals: data.labels.map((_, i) => i), ticktext: data.labels.map((label) => short(label, 20)), range: [data.labels.length - 0.4, -0.6], showgrid: false,
      });
      return [traces, layout];
    },

    curves(data, choice, width) {
      const k = choice.label || 0, n = data.runs.length, several = data.thresholds.length;
      const every = choice.threshold === undefined ? n === 1 : choice.threshold === several;
      const which = every ? data.thresholds.map((_, t) => t) : [choice.threshold === undefined ? data.chosen : choice.threshold];
      const layout = look(width, Math.min(420, Math.max(300, width * 0.6)));
      const x = data.recall.map((value) => value / 1000);
      const traces = [];
      data.runs.forEach((run, r) => which.forEach((t) => {
        const y = data.precision[r][k][t].map((value) => (value === null ? null : value / 1000));
        const name = [n > 1 ? run : "", which.length > 1 || n === 1 ? data.thresholds[t] : ""].filter(Boolean).join(", ");
        traces.push({
          type: "scatter", mode: "lines", name: short(name, 40), x, y, showlegend: n * which.length > 1, connectgaps: false,
          line: { width: 2, color: n > 1 ? runColor(r) : shade(t, which.length), dash: DASHES[(n > 1 && which.length === 1 ? r : t) % 6] },
          hovertemplate: `<b>${short(name, 60)}</b><br>recall %{x:.2f}<br>precision %{y:.3f}<extra></extra>`,
        });
      }));
      layout.xaxis = axisOf(layout, { title: { text: "recall" }, range: [0, 1.005], zeroline: false });
      layout.yaxis = axisOf(layout, { title: { text: "precision" }, range: [0, 1.02], zeroline: false });
      layout.shapes = border(data);
      return [traces, empty(layout, traces)];
    },

    errors(data, choice, width) {
      const k = choice.label || 0, n = data.runs.length, e = data.errors.length;
      const columns = Math.min(e, width > 900 ? 3 : width > 520 ? 2 : 1), rows = Math.ceil(e / columns);
      const layout = look(width, rows * 215 + 50, { grid: { rows, columns, pattern: "independent", xgap: 0.16, ygap: 0.34 } });
      const x = data.recall.map((value) => value / 1000);
      const traces = [];
      layout.annotations = [];
      data.errors.forEach((error, i) => {
        const at = i ? i + 1 : "";
        data.runs.forEach((run, r) => traces.push({
          type: "scatter", mode: "lines", name: short(run, 40), legendgroup: "run" + r, showlegend: n > 1 && i === 0, x, xaxis: "x" + at, yaxis: "y" + at,
          y: data.values[r][k][i].map((value) => (value === null ? null : value / 1000)), connectgaps: false,
          line: { width: 2, color: runColor(r), dash: n > 1 ? DASHES[r % 6] : "solid" },
          hovertemplate: `<b>${plain(error.name)}${n > 1 ? ", " + short(run, 40) : ""}</b><br>recall %{x:.2f}<br>%{y:.3f} ${plain(error.unit)}<extra></extra>`,
        }));
        const none = data.values.every((run) => run[k][i].every((value) => value === null));
        layout["xaxis" + at] = axisOf(layout, { range: [0, 1.005], zeroline: false, title: { text: i >= e - columns ? "recall" : "" } });
        layout["yaxis" + at] = axisOf(layout, { rangemode: "tozero", zeroline: false, nticks: 5, ...(none ? { range: [0, 1] } : {}) });
        layout.annotations.push({
          text: `<b>${plain(error.name)}</b> (${plain(error.unit)})${none ? " – undefined" : ""}`, showarrow: false, xref: `x${at} domain`, yref: `y${at} domain`, x: 0, y: 1, yanchor: "bottom", xanchor: "left",
        });
      });
      layout.margin.t = n > 1 ? 20 : 30;
      layout.legend.y = 1 + 26 / (rows * 215);
      return [traces, layout];
    },

    grid(data, choice, width) {
      const n = data.columns.length, small = width < 640 || n > 14, steep = width / (n + 4) < 48; // names lean only where there is room
      const layout = look(width, Math.max(200, (steep ? 150 : 90) + data.rows.length * (small ? 20 : 27)));
      const z = data.share, dark = isDark(), turn = dark ? 0.58 : 0.83; // where both inks are read as well
      const traces = [{
        type: "heatmap", z, x: data.columns.map((_, i) => i), y: data.rows.map((_, i) => i), zmin: 0, zmax: 1, showscale: false, xgap: 1, ygap: 1,
        colorscale: dark ? [[0, "#171b20"], [0.02, "#1c2b3a"], [1, "#56b4e9"]] : [[0, "#ffffff"], [0.02, "#e4eef6"], [1, "#0072b2"]],
        text: data.counts.map((row, i) => row.map((count, j) => `truth <b>${plain(data.rows[i])}</b><br>predicted <b>${plain(data.columns[j])}</b><br>${count.toLocaleString("en")} (${(100 * z[i][j]).toFixed(1)} % of the row)`)),
        hovertemplate: "%{text}<extra></extra>",
      }];
      layout.annotations = data.counts.flatMap((row, i) => row.map((count, j) => ({ count, i, j }))).filter((one) => one.count && width / (n + 4) > 24).map(({ count, i, j }) => ({
        x: j, y: i, text: count >= 10000 ? (count / 1000).toFixed(0) + "k" : String(count), showarrow: false, hovertext: "", captureevents: false,
        font: { size: small ? 9 : 11, color: z[i][j] > turn ? (dark ? "#0b1a26" : "#ffffff") : style("--ink") },
      }));
      layout.xaxis = axisOf(layout, { tickmode: "array", tickvals: data.columns.map((_, i) => i), ticktext: data.columns.map((name) => short(name, 20)), tickangle: steep ? -90 : -40, ticklabeloverflow: "allow", side: "top", showgrid: false, zeroline: false });
      layout.yaxis = axisOf(layout, { tickmode: "array", tickvals: data.rows.map((_, i) => i), ticktext: data.rows.map((name) => short(name, width < 500 ? 12 : 22)), range: [data.rows.length - 0.5, -0.5], showgrid: false, zeroline: false });
      layout.margin = { ...layout.margin, b: 12, r: steep ? 12 : 26 };
      return [traces, layout];
    },

    reliability(data, choice, width) {
      const k = choice.label || 0, n = data.series.length;
      const layout = look(width, Math.min(400, Math.max(290, width * 0.6)), { barmode: "group" });
      const traces = data.series.map((series, s) => ({
        type: "scatter", mode: "lines+markers", cliponaxis: false, name: short(series.name, 40), showlegend: n > 1, x: series.score[k], y: series.precision[k], connectgaps: true,
        line: { width: 1.5, color: runColor(s), dash: DASHES[s % 6] }, marker: { symbol: MARKS[s % 6], color: runColor(s), opacity: 1, size: series.count[k].map((count) => (count ? Math.min(18, 5 + 2 * Math.log10(count)) : 5)) },
        text: series.count[k].map((count) => `${count.toLocaleString("en")} predictions`),
        hovertemplate: `${n > 1 ? "<b>" + short(series.name, 40) + "</b><br>" : ""}mean score %{x:.2f}<br>right %{y:.3f}<br>%{text}<extra></extra>`,
      }));
      layout.shapes = [{ type: "line", x0: 0, x1: 1, y0: 0, y1: 1, layer: "below", line: { color: style("--soft"), width: 1.2, dash: "dot" } }];
      layout.xaxis = axisOf(layout, { title: { text: "score" }, range: [-0.02, 1.02], zeroline: false });
      layout.yaxis = axisOf(layout, { title: { text: "share that is right" }, range: [-0.02, 1.04], zeroline: false });
      return [traces, empty(layout, traces)];
    },
  };

  function border(data) {
    const box = (x1, y1) => ({ type: "rect", xref: "x", yref: "y", x0: 0, x1, y0: 0, y1, layer: "below", line: { width: 0 }, fillcolor: isDark() ? "rgba(255,255,255,.06)" : "rgba(0,0,0,.05)" });
    return [box(data.min_recall, 1.02), box(1.005, data.min_precision)].filter((one) => one.x1 && one.y1);
  }

  function empty(layout, traces) {
    if (traces.some((trace) => trace.y.some((value) => value !== null))) return layout;
    return { ...layout, annotations: [{ text: "undefined: nothing was found", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { size: 14, color: style("--soft") } }] };
  }

  // ---- drawing

  function draw(one, force) {
    const width = printing ? 680 : Math.floor(one.box.clientWidth);
    if (!width || (!force && one.width === width)) return;
    one.width = width;
    const [traces, layout] = CHARTS[one.figure.chart](one.figure.data, one.choice, width);
    delete layout.axis;
    Plotly.react(one.box, traces, layout, CONFIG);
    one.box.dataset.drawn = "";
  }

  function choices(one, holder) {
    const { data } = one.figure;
    const add = (name, words, options, start) => {
      if (options.length < 2) return;
      const label = document.createElement("label"), select = document.createElement("select");
      label.append(words, select);
      options.forEach((option, i) => select.append(new Option(option, i, i === start, i === start)));
      select.addEventListener("change", () => { one.choice[name] = Number(select.value); draw(one, true); });
      holder.append(label);
    };
    if (data.views) add("view", "show", data.views.map((view) => view.name), 0);
    if (data.labels && !data.views) add("label", "class", data.labels, 0);
    if (data.precision) add("threshold", "match", [...data.thresholds, "all"], data.runs.length > 1 ? data.chosen : data.thresholds.length);
  }

  for (const figure of figures) {
    const element = document.getElementById(figure.id);
    const one = { figure, box: element.querySelector(".chart"), choice: {}, width: 0 };
    shown.set(figure.id, one);
    choices(one, element.querySelector(".choices"));
    element.querySelector(".svg").addEventListener("click", async () => {
      draw(one);
      const words = await Plotly.toImage(one.box, { format: "svg", width: one.box._fullLayout.width, height: one.box._fullLayout.height });
      save(figure.id + ".svg", "image/svg+xml", decodeURIComponent(words.slice(words.indexOf(",") + 1)));
    });
  }
  const all = (force) => shown.forEach((one) => draw(one, force));

  // what is in view at once, the others one by one when there is time
  const waiting = [...shown.values()];
  const idle = window.requestIdleCallback || ((run) => setTimeout(run, 1));
  const next = () => {
    const one = waiting.shift();
    if (one) { draw(one); idle(next, { timeout: 200 }); } else { performance.mark("drawn"); root.dataset.drawn = "all"; }
  };
  idle(next, { timeout: 50 });
  let timer = 0;
  new ResizeObserver(() => { clearTimeout(timer); timer = setTimeout(() => { if (!printing && root.dataset.drawn) all(false); }, 120); }).observe(document.getElementById("main"));

  const folded = () => [...document.querySelectorAll("details:not([open])")];
  let opened = [], themed;
  // charts are drawn before the style of paper holds, so paper's colours are asked for
  window.addEventListener("beforeprint", () => {
    printing = true; themed = root.dataset.theme; root.dataset.theme = "light";
    opened = folded(); opened.forEach((one) => { one.open = true; }); all(true);
  });
  window.addEventListener("afterprint", () => {
    printing = false; if (themed) root.dataset.theme = themed; else delete root.dataset.theme;
    opened.forEach((one) => { one.open = false; }); all(true);
  });

  // ---- light and dark

  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  function theme(name) {
    if (name) root.dataset.theme = name;
    const dark = style("color-scheme") === "dark";
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-label", dark ? "Switch to light colours" : "Switch to dark colours");
    button.setAttribute("aria-pressed", String(dark));
    if (root.dataset.drawn) all(true);
  }
  button.addEventListener("click", () => {
    const name = style("color-scheme") === "dark" ? "light" : "dark";
    theme(name);
    try { localStorage.setItem("detmetrics-theme", name); } catch { /* a file may not be allowed to remember */ }
  });
  system.addEventListener("change", () => theme());
  let remembered = null;
  try { remembered = localStorage.getItem("detmetrics-theme"); } catch { /* as above */ }
  theme(remembered === "light" || remembered === "dark" ? remembered : undefined);

  // ---- tables

  const said = document.getElementById("said");
  const key = (cell) => (cell.dataset.v === undefined ? (cell.classList.contains("n") ? null : cell.textContent.trim()) : Number(cell.dataset.v));
  function sort(table, at, header) {
    const up = header.getAttribute("aria-sort") === "ascending" || (!header.hasAttribute("aria-sort") && header.classList.contains("n")) ? -1 : 1;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, i) => [key(row.cells[at]), i, row]);
    rows.sort(([a, i], [b, j]) => {
      if (a === null || b === null) return a === b ? i - j : a === null ? 1 : -1; // undefined stays last
      const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
      return up * order || i - j;
    });
    body.append(...rows.map(([, , row]) => row));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
    said.textContent = `${table.caption.textContent}: sorted by ${header.textContent}, ${up > 0 ? "ascending" : "descending"}`;
  }
  document.querySelectorAll(".table").forEach((box) => {
    const table = box.querySelector("table");
    box.querySelectorAll(".save").forEach((one) => {
      if (!table) { one.hidden = true; return; }
      one.addEventListener("click", () => {
        const csv = one.dataset.as === "csv";
        save(`${box.dataset.name}.${csv ? "csv" : "md"}`, csv ? "text/csv" : "text/markdown", csv ? asCsv(table) : asMarkdown(table));
      });
    });
    if (table) [...table.tHead.rows[0].cells].forEach((header, at) => header.firstElementChild.addEventListener("click", () => sort(table, at, header)));
  });

  const words = (cell) => [...cell.childNodes].filter((node) => node.nodeName !== "SMALL" && node.nodeName !== "svg").map((node) => node.textContent).join("").trim();
  const rowsOf = (table) => [...table.tBodies[0].rows, ...(table.tFoot ? table.tFoot.rows : [])];
  const kept = (table) => [...table.tHead.rows[0].cells].map((header, i) => ({ header, i })).filter(({ i }) => !table.tBodies[0].querySelector(`tr > :nth-child(${i + 1}) > svg`));

  function asCsv(table) {
    // a spreadsheet would take a text that begins like a formula for one
    const quote = (text) => { const safe = /^[=+@\t\r]|^-(?![\d.]+$)/.test(text) ? "'" + text : text; return /[",\n\r]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe; };
    const columns = kept(table);
    const head = columns.flatMap(({ header }) => { const name = header.textContent.trim(); return "interval" in header.dataset ? [name, name + " low", name + " high"] : [name]; });
    const lines = rowsOf(table).map((row) => columns.flatMap(({ header, i }) => {
      const cell = row.cells[i], { v, l, h } = cell.dataset;
      const value = v !== undefined ? v : cell.classList.contains("none") ? "" : words(cell);
      return "interval" in header.dataset ? [value, l || "", h || ""] : [value];
    }));
    return [head, ...lines].map((line) => line.map(quote).join(",")).join("\r\n") + "\r\n";
  }

  function asMarkdown(table) {
    const escape = (text) => text.replace(/[\\`*_{}[\]<>#|]/g, "\\$&").replace(/\s+/g, " ");
    const columns = kept(table);
    const line = (cells) => `| ${cells.join(" | ")} |`;
    const body = rowsOf(table).map((row) => line(columns.map(({ i }) => {
      const small = row.cells[i].querySelector("small");
      return escape(words(row.cells[i])) + (small ? ` (${escape(small.textContent)})` : "");
    })));
    return [line(columns.map(({ header }) => escape(header.textContent.trim()))), line(columns.map(({ header }) => (header.classList.contains("n") ? "---:" : "---"))), ...body].join("\n") + "\n";
  }

  function save(name, kind, content) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type: kind + ";charset=utf-8" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    said.textContent = `${name} saved`;
  }

  // ---- where we are

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  const watch = new IntersectionObserver((entries) => {
    entries.forEach((entry) => (entry.isIntersecting ? seen.add(entry.target.id) : seen.delete(entry.target.id)));
    const first = [...links.keys()].find((id) => seen.has(id));
    links.forEach((link, id) => (id === first ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
  }, { rootMargin: "-15% 0px -70% 0px" });
  links.forEach((_, id) => watch.observe(document.getElementById(id)));
})();
