// The figures and controls of a report. Names come from users: Plotly reads some tags in its texts, so `said` escapes.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  const said = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const unique = (items) => [...new Set(items)];
  const wide = (values) => values.length > 1 && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 20;
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const BANDS = 12; // more bands than this hide each other

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (place) => css(`--c${place}`);
  const faint = (hex, part) => hex + Math.round(part * 255).toString(16).padStart(2, "0");

  // ---- figures

  const OPTIONS = {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };
  const axis = (title, more = {}) => ({
    title: { text: said(title), font: { size: 12 } }, gridcolor: css("--line"), linecolor: css("--line"),
    zeroline: false, automargin: true, ...more,
  });
  const layout = (more) => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 56, r: 12, t: 12, b: 44 },
    font: { family: css("--sans"), size: 12, color: css("--ink") }, hovermode: "closest",
    hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink") } }, ...more,
  });
  // Draws a figure, and lets paper scale it: Plotly's pictures are so many pixels wide, and would be cut off.
  function plot(box, traces, layout) {
    Plotly.react(box, traces, layout, OPTIONS);
    const fit = () => {
      for (const picture of $$(".main-svg", box)) {
        const [width, height] = ["width", "height"].map((side) => picture.getAttribute(side));
        picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
        $(".svg-container", box).style.setProperty("--ratio", String(width / height));
      }
    };
    fit();
    if (!box.dataset.fits) box.on("plotly_afterplot", fit);
    box.dataset.fits = "yes";
  }
  const places = new Map(); // trial -> its place among the trials of its system, which chooses the dash
  for (const run of data.runs) {
    const mates = unique(data.runs.filter((other) => other.system === run.system).map((other) => other.trial));
    places.set(run.trial, mates.sort((a, b) => a - b).indexOf(run.trial));
  }
  const line = (run) => ({
    color: colour(run.colour), dash: DASHES[places.get(run.trial) % DASHES.length], width: run.role === "confirm" ? 1.4 : 2,
  });
  const name = (run) => said(`${run.system} ${run.label}`) + (run.role === "confirm" ? " *" : "");

  function history() {
    const box = $("#history");
    const some = data.runs.filter((run) => run.history.step.length);
    if (!some.length) return empty(box, "No evaluations yet.");
    const choice = $("#history-score"), toggle = $("#history-log");
    const others = unique(Object.values(data.steps).flatMap(Object.keys)).filter((each) => each !== data.objective).sort();
    if (!choice.onchange) fill(choice, [data.objective, ...others].map((each) => [each, each]));
    choice.parentElement.hidden = !others.length;
    const narrow = box.clientWidth < 640;
    const draw = () => {
      const own = choice.value === data.objective;
      const of = (run) => own ? run.history : (data.steps[run.run] || {})[choice.value];
      const runs = (own ? some : data.runs).filter((run) => of(run));
      const traces = runs.length > BANDS ? [] : runs.flatMap((run) => {
        const { step, low, high } = of(run);
        const at = step.map((_, index) => index).filter((index) => low[index] !== null && high[index] !== null);
        return at.length < 2 ? [] : [{
          x: [...at.map((i) => step[i]), ...at.map((i) => step[i]).reverse()],
          y: [...at.map((i) => high[i]), ...at.map((i) => low[i]).reverse()],
          fill: "toself", fillcolor: faint(colour(run.colour), 0.13), line: { width: 0 }, mode: "lines",
          hoverinfo: "skip", showlegend: false, legendgroup: run.label,
        }];
      });
      traces.push(...runs.map((run) => ({
        x: of(run).step, y: of(run).value, name: name(run), legendgroup: run.label,
        mode: of(run).step.length > 40 ? "lines" : "lines+markers", marker: { size: 5 }, line: line(run),
        hovertemplate: `${name(run)}<br>step %{x}<br>%{y:.4g}<extra></extra>`,
      })));
      const values = runs.flatMap((run) => of(run).value).filter((value) => value !== null);
      if (!toggle.onchange) toggle.checked = wide(values); // at first: drawn again, for paper or the dark, it keeps its choice
      toggle.disabled = values.some((value) => value <= 0);
      const log = toggle.checked && !toggle.disabled;
      const floors = own ? [data.floor] : unique(runs.map((run) => of(run).floor));
      const shapes = floors.length > 1 || floors[0] === null ? [] : [{
        type: "line", xref: "paper", x0: 0, x1: 1, y0: floors[0], y1: floors[0],
        line: { color: css("--soft"), width: 1, dash: "dash" },
      }];
      const borders = new Map(runs.map((run) => [`${data.pretraining[run.run]} ${run.colour}`, run]));
      for (const run of borders.values()) if (data.pretraining[run.run] !== undefined) shapes.push({
        type: "line", yref: "paper", y0: 0, y1: 1, x0: data.pretraining[run.run], x1: data.pretraining[run.run],
        line: { color: colour(run.colour), width: 1.2, dash: "dot" },
      });
      for (const run of own ? runs : []) {
        const at = run.alarm === null || run.alarm === undefined ? -1 : run.history.step.indexOf(run.alarm);
        if (at >= 0) traces.push({
          x: [run.alarm], y: [run.history.value[at]], mode: "markers", showlegend: false, legendgroup: run.label,
          marker: { symbol: "x", size: 11, color: colour(run.colour), line: { width: 1, color: css("--ink") } },
          hovertemplate: `${name(run)}<br>alarm at step %{x}<br>%{y:.4g}<extra></extra>`,
        });
      }
      plot(box, traces, layout({
        xaxis: axis("step"), shapes,
        yaxis: axis(choice.value, { type: log ? "log" : "linear", ...(log ? { dtick: 1 } : {}) }),
        showlegend: runs.length <= 60, legend: narrow ? { orientation: "h", y: -0.2 } : { tracegroupgap: 0 },
      }));
    };
    show("history");
    draw();
    choice.onchange = toggle.onchange = draw;
    savable(box, "objective", TABLES.objective);
  }

  // Steps: a share holds until the next failure.
  function survival() {
    const box = $("#survival");
    if (!box) return;
    const traces = data.survival.flatMap((each, place) => {
      const shift = 0.005 * (place - (data.survival.length - 1) / 2); // lines that coincide would hide each other
      const own = colour(each.colour), dash = DASHES[each.dash % DASHES.length], text = said(`${each.name}, n = ${each.n}`);
      const band = { mode: "lines", line: { width: 0, shape: "hv" }, hoverinfo: "skip", showlegend: false, legendgroup: each.name };
      const shown = data.survival.length > 4 || each.low.length < 3 ? [] : [
        { ...band, x: each.step.slice(1), y: each.low.slice(1) },
        { ...band, x: each.step.slice(1), y: each.high.slice(1), fill: "tonexty", fillcolor: faint(own, 0.13) },
      ];
      return [...shown, {
        x: each.step, y: each.share.map((share) => share + shift), customdata: each.share, name: text, legendgroup: each.name, mode: "lines", line: { color: own, dash, width: 2, shape: "hv" },
        hovertemplate: `${text}<br>step %{x}<br>%{customdata:.0%} not failed<extra></extra>`,
      }, {
        x: each.watched, y: each.at.map((share) => share + shift), mode: "markers", showlegend: false, legendgroup: each.name, hoverinfo: "skip",
        marker: { symbol: "line-ns", size: 9, line: { width: 1.6, color: own } },
      }];
    });
    plot(box, traces, layout({
      xaxis: axis("step", { rangemode: "tozero" }), yaxis: axis("runs not failed", { tickformat: ".0%", range: [-0.03, 1.05] }),
      height: 340, showlegend: true, legend: { orientation: "h", y: -0.25 },
    }));
    savable(box, "survival", TABLES.survival);
  }

  function budget() {
    const box = $("#budget");
    if (!box) return;
    const finite = data.budget.flatMap((each) => [...each.median, ...each.expected]).filter((value) => value !== null);
    const log = wide(finite), room = log ? (Math.max(...finite) / Math.min(...finite)) ** 0.08 : 0.06 * (Math.max(...finite) - Math.min(...finite)) || 1;
    const ends = [Math.min(...finite), Math.max(...finite)].map((value, top) => log ? (top ? value * room : value / room) : (top ? value + room : value - room));
    const traces = data.budget.flatMap((each) => {
      const own = colour(each.colour), text = said(each.name);
      const band = { x: each.trials, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
      return [
        { ...band, y: each.low.map((value) => value === null ? ends[0] : Math.max(value, ends[0])) },
        { ...band, y: each.high.map((value) => value === null ? ends[1] : Math.min(value, ends[1])), fill: "tonexty", fillcolor: faint(own, 0.13) },
        { x: each.trials, y: each.expected, mode: "lines", line: { color: own, dash: "dot", width: 1.3 }, showlegend: false,
          hovertemplate: `${text}<br>mean of the best of %{x}: %{y:.4g}<extra></extra>` },
        { x: each.trials, y: each.median, name: text, mode: each.trials.length > 40 ? "lines" : "lines+markers", marker: { size: 6 },
          line: { color: own, dash: DASHES[each.dash % DASHES.length], width: 2.2 },
          hovertemplate: `${text}<br>best of %{x}: %{y:.4g}<extra></extra>` },
      ];
    });
    const decades = log ? Array.from({ length: 40 }, (_, at) => 10 ** (at - 20)).flatMap((ten) => [ten, 2 * ten, 5 * ten]) : [];
    const ticks = decades.filter((value) => value >= ends[0] && value <= ends[1]).map((value) => Number(value.toPrecision(1)));
    plot(box, traces, layout({
      xaxis: axis("budget k (trials)"),
      yaxis: axis(data.objective, log ? { type: "log", range: ends.map(Math.log10), tickvals: ticks, ticktext: ticks.map(String) } : { range: ends }),
      height: 340, showlegend: data.budget.length > 1, legend: { orientation: "h", y: -0.25 },
    }));
    savable(box, "budget", TABLES.budget);
  }

  function modes() {
    const box = $("#heat");
    if (!box) return;
    const runs = data.runs.filter((run) => run.bins);
    fill($("#judged"), runs.map((run) => [run.label, `${run.system} ${run.label}`]));
    const draw = () => {
      const { steps, names, ratios } = runs.find((run) => run.label === $("#judged").value).bins;
      plot(box, [{
        type: "heatmap", x: steps.map(String), y: names.map(said), z: ratios.map((row) => row.map((ratio) => Math.min(ratio, 2))),
        text: ratios.map((row) => row.map((ratio) => ratio.toFixed(2))), zmin: 0, zmax: 2, xgap: 1, ygap: 1,
        colorscale: [[0, css("--ink")], [0.5, css("--card")], [1, css("--accent")]],
        colorbar: { thickness: 10, outlinewidth: 0, tickvals: [0, 1, 2], ticktext: ["missing", "as real", "twice"] },
        hovertemplate: "step %{x}<br>%{y}: %{text} of its share<extra></extra>",
      }], layout({
        xaxis: axis("step", { type: "category" }), yaxis: axis("", { type: "category", autorange: "reversed" }),
        height: Math.min(900, 120 + 22 * names.length),
      }));
    };
    $("#judged").onchange = draw;
    show("modes");
    draw();
    savable(box, "bins", TABLES.bins);
  }

  function quality() {
    const box = $("#plane");
    if (!box) return;
    const runs = data.runs.filter((run) => run.temperature);
    const stacked = box.clientWidth < 640, traces = [], axes = {};
    PLANES.forEach(([across, up, x, y], place) => {
      const id = place ? 2 : "", at = { xaxis: `x${id}`, yaxis: `y${id}` };
      axes[`xaxis${id}`] = axis(x, { anchor: `y${id}`, domain: stacked ? [0, 1] : [place * 0.54, 0.46 + place * 0.54] });
      axes[`yaxis${id}`] = axis(y, { anchor: `x${id}`, domain: stacked ? [(1 - place) * 0.57, 0.43 + (1 - place) * 0.57] : [0, 1] });
      for (const run of runs) {
        const { points } = run.temperature, own = points.temperature.indexOf(1);
        traces.push({
          ...at, x: points[across], y: points[up], text: points.temperature.map(String), mode: "lines+markers+text",
          textposition: "top right", textfont: { size: 10, color: colour(run.colour) }, name: name(run),
          legendgroup: run.label, showlegend: !place, line: { ...line(run), width: 1.6 },
          marker: { size: points.temperature.map((_, index) => index === own ? 11 : 5),
            symbol: points.temperature.map((_, index) => index === own ? "circle-open" : "circle"), line: { width: 2 } },
          hovertemplate: `${name(run)}<br>temperature %{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>`,
        });
      }
      const { real } = runs[0].temperature;
      traces.push({
        ...at, x: [real[across]], y: [real[up]], mode: "markers", name: "real", legendgroup: "real", showlegend: !place,
        marker: { symbol: "cross", size: 12, color: css("--ink") },
        hovertemplate: "real sentences<br>%{x:.4g}, %{y:.4g}<extra></extra>",
      });
    });
    plot(box, traces, layout({
      ...axes, height: stacked ? 860 : 460, legend: { orientation: "h", y: stacked ? -0.1 : -0.18 },
    }));
    savable(box, "quality-diversity", TABLES["quality-diversity"]);
  }

  const PLANES = [["self_bleu_4", "bleu_4", "Self-BLEU-4", "BLEU-4"],
    ["lm_reverse", "lm_forward", "reverse LM, nats a word", "forward LM, nats a word"]];

  function beside() {
    const box = $("#contest");
    if (!box) return;
    const { curves, points } = data.beside;
    const stacked = box.clientWidth < 640, traces = [], axes = {};
    PLANES.forEach(([across, up, x, y], place) => {
      const id = place ? 2 : "", at = { xaxis: `x${id}`, yaxis: `y${id}`, showlegend: !place };
      axes[`xaxis${id}`] = axis(x, { anchor: `y${id}`, domain: stacked ? [0, 1] : [place * 0.54, 0.46 + place * 0.54] });
      axes[`yaxis${id}`] = axis(y, { anchor: `x${id}`, domain: stacked ? [(1 - place) * 0.57, 0.43 + (1 - place) * 0.57] : [0, 1] });
      curves.forEach((curve, number) => traces.push({
        ...at, x: curve[across], y: curve[up], text: number ? [] : curve.temperature.map(String), name: said(curve.name),
        mode: number ? "lines+markers" : "lines+markers+text", textposition: "top right", textfont: { size: 10, color: colour(curve.colour) },
        legendgroup: curve.name, line: { color: colour(curve.colour), dash: DASHES[number % DASHES.length], width: 1.6 }, marker: { size: 5 },
        customdata: curve.temperature, hovertemplate: `${said(curve.name)}<br>temperature %{customdata}<br>%{x:.4g}, %{y:.4g}<extra></extra>`,
      }));
      points.forEach((point) => traces.push({
        ...at, x: [point[across]], y: [point[up]], mode: "markers", name: said(`${point.name}: ${point.answer}`), legendgroup: point.name,
        marker: { size: 9, symbol: "x", color: colour(point.colour) },
        error_x: { type: "constant", value: 1.96 * point[`${across}_error`], color: colour(point.colour), thickness: 1.2, width: 3 },
        error_y: { type: "constant", value: 1.96 * point[`${up}_error`], color: colour(point.colour), thickness: 1.2, width: 3 },
        hovertemplate: `${said(point.name)}: ${said(point.answer)}<br>%{x:.4g}, %{y:.4g}<extra></extra>`,
      }));
    });
    plot(box, traces, layout({
      ...axes, height: stacked ? 860 : 460, legend: { orientation: "h", y: stacked ? -0.1 : -0.18 },
    }));
    savable(box, "beside-likelihood", TABLES.beside);
  }

  function training() {
    const box = $("#training");
    if (!box) return;
    const runs = data.runs.filter((run) => run.curves && Object.keys(run.curves).length);
    const family = (scalar) => (scalar.includes("/") ? scalar.split("/")[0] : "other");
    // What has one point says when it was taken, not how it went.
    const scalars = unique(runs.flatMap((run) => Object.keys(run.curves)))
      .filter((scalar) => runs.some((run) => run.curves[scalar] && run.curves[scalar].step.length > 1));
    if (!scalars.length) return empty(box, "No curves yet.");
    const families = unique(scalars.map(family)).sort((a, b) => (b === "loss") - (a === "loss") || (a < b ? -1 : 1));
    fill($("#family"), families.map((each) => [each, each]));
    fill($("#run"), [["", "all"], ...runs.map((run) => [run.label, `${run.system} ${run.label}`])]);
    const draw = () => {
      const wanted = scalars.filter((scalar) => family(scalar) === $("#family").value).sort();
      const shown = runs.filter((run) => !$("#run").value || run.label === $("#run").value);
      const columns = Math.min(wanted.length, box.clientWidth < 640 ? 1 : box.clientWidth < 1000 ? 2 : 3);
      const rows = Math.ceil(wanted.length / columns);
      const traces = [], axes = {}, titles = [];
      const gap = { x: columns > 1 ? 0.06 : 0, y: rows > 1 ? 0.26 / rows : 0 };
      const width = (1 - gap.x * (columns - 1)) / columns, height = (1 - gap.y * (rows - 1)) / rows;
      wanted.forEach((scalar, place) => {
        const id = place ? place + 1 : "", left = (place % columns) * (width + gap.x);
        const top = 1 - Math.floor(place / columns) * (height + gap.y);
        axes[`xaxis${id}`] = axis("", { domain: [left, left + width], anchor: `y${id}` });
        axes[`yaxis${id}`] = axis("", { domain: [Math.max(0, top - height), top], anchor: `x${id}`, nticks: 5 });
        titles.push({ text: said(scalar), x: left, y: top, xref: "paper", yref: "paper", xanchor: "left",
          yanchor: "bottom", showarrow: false, font: { size: 12, color: css("--soft") } });
        for (const run of shown) {
          const curve = run.curves[scalar];
          if (curve) traces.push({
            x: curve.step, y: curve.value, xaxis: `x${id}`, yaxis: `y${id}`, mode: "lines", name: name(run),
            line: { ...line(run), width: 1.4 }, hovertemplate: `${name(run)}<br>step %{x}<br>%{y:.4g}<extra></extra>`,
          });
        }
      });
      plot(box, traces, layout({
        ...axes, annotations: titles, showlegend: false, height: 60 + rows * 250, margin: { l: 48, r: 12, t: 30, b: 30 },
      }));
    };
    $("#family").onchange = $("#run").onchange = draw;
    show("curves");
    draw();
    savable(box, "curves", TABLES.curves);
  }

  // Parallel axes drawn as ordinary lines: Plotly's own kind needs WebGL and compiles code, which the page forbids.
  function parallel() {
    const box = $("#parallel");
    const systems = unique(data.trials.map((trial) => trial.system)).map((system) =>
      data.trials.filter((trial) => trial.system === system));
    const enough = systems.filter((trials) => trials.length >= 3 && Object.keys(trials[0].config).length);
    if (!enough.length) return empty(box, "A system needs three trials with a score and something to choose.");
    for (const trials of enough) {
      const part = box.appendChild(document.createElement("div"));
      part.className = "figure";
      const names = unique(trials.flatMap((trial) => Object.keys(trial.config)));
      const axes = [...names.map((each) => scaled(each, trials.map((trial) => trial.config[each]))),
        scaled(data.objective, trials.map((trial) => trial.value))];
      const order = trials.map((trial) => trial.value).sort((a, b) => (data.better === "lower" ? a - b : b - a));
      const traces = trials.map((trial, row) => {
        const worse = order.indexOf(trial.value) / Math.max(1, order.length - 1);
        const told = axes.map((each) => `${said(each.name)} = ${said(spoken(each.values[row]))}`).join("<br>");
        return {
          x: axes.map((_, place) => place), y: axes.map((each) => each.at[row]), mode: "lines+markers",
          marker: { size: 5 }, opacity: 1 - 0.72 * worse, connectgaps: true,
          line: { color: colour(trial.colour), width: 3.2 - 2.2 * worse },
          hovertemplate: `${said(trial.system)} trial ${trial.trial}<br>${told}<extra></extra>`,
        };
      });
      const ticks = axes.flatMap((each, place) => each.ticks.map(([at, text]) => ({
        x: place, y: at, text: said(text), xanchor: "left", xshift: 7, showarrow: false, font: { size: 11, color: css("--soft") },
        bgcolor: faint(css("--paper"), 0.75), borderpad: 1,
      })));
      plot(part, traces, layout({
        height: 330, showlegend: false, annotations: ticks, margin: { l: 28, r: 70, t: 40, b: 12 },
        title: { text: said(trials[0].system), x: 0, xanchor: "left", font: { size: 13, color: colour(trials[0].colour) } },
        xaxis: { tickvals: axes.map((_, place) => place), ticktext: axes.map((each) => said(each.name)), side: "top",
          gridcolor: css("--soft"), zeroline: false, range: [-0.08, axes.length - 0.7], fixedrange: true },
        yaxis: { visible: false, range: [-0.08, 1.08], fixedrange: true },
      }));
      savable(part, "trials", TABLES.trials);
    }
  }

  const spoken = (value) => typeof value === "number" ? String(Number(value.toPrecision(4)))
    : typeof value === "string" ? value : value === undefined ? "–" : JSON.stringify(value);

  function scaled(name, values) {
    const known = values.filter((value) => value !== undefined && value !== null);
    const counted = known.every(Number.isInteger) && unique(known).length <= 6; // a few sizes, not a range
    if (known.every((value) => typeof value === "number") && unique(known).length > 2 && !counted) {
      const f = wide(known) || (Math.min(...known) > 0 && Math.max(...known) / Math.min(...known) > 5) ? Math.log : (v) => v;
      const low = Math.min(...known), high = Math.max(...known);
      const place = (value) => typeof value === "number" ? (f(value) - f(low)) / (f(high) - f(low)) : null;
      const middle = f === Math.log ? Math.sqrt(low * high) : (low + high) / 2;
      const ticks = [low, middle, high].map((value) => [place(value), String(Number(value.toPrecision(3)))]);
      return { name, values, at: values.map(place), ticks };
    }
    const labels = unique(known.map(spoken)).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const place = (label) => labels.length > 1 ? labels.indexOf(label) / (labels.length - 1) : 0.5;
    const at = values.map((value) => value === undefined || value === null ? null : place(spoken(value)));
    return { name, values, at, ticks: labels.map((label) => [place(label), label]) };
  }

  // ---- files, made when they are asked for: the page does not hold its figures twice

  function saved(address, file) {
    const link = document.createElement("a");
    link.href = address;
    link.download = file;
    document.body.append(link);
    link.click();
    link.remove();
  }
  function button(text, label, action) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "save";
    made.textContent = text;
    made.setAttribute("aria-label", label);
    made.onclick = action;
    return made;
  }
  // As the CSV of tables, `web/tables.py`: a text that a spreadsheet would compute begins with an apostrophe.
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n]/.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  const csv = (rows) => `data:text/csv;charset=utf-8,${encodeURIComponent(rows.map((row) => row.map(cell).join(",") + "\n").join(""))}`;

  // Buttons below a figure: its picture, and `table`, the numbers that it draws.
  function savable(box, name, table) {
    if (box.nextElementSibling?.classList.contains("files")) return;
    const line = document.createElement("p"), file = `${data.sweep}-${name}`;
    line.className = "files";
    const picture = async () => {
      const opaque = { data: box.data, layout: { ...box.layout, paper_bgcolor: css("--paper") } };
      const size = { width: box.clientWidth, height: box.clientHeight };
      saved(await Plotly.toImage(opaque, { format: "png", scale: 2, ...size }), `${file}.png`);
    };
    line.append(button("PNG", `save ${name} as a picture`, picture), button("CSV", `save the numbers of ${name}`,
      () => saved(csv(table()), `${file}.csv`)));
    box.after(line);
  }
  // A run by its whole id, as in `web/tables.py`: a spreadsheet reads the labels 1.1 and 1.10 as one number.
  const TABLES = {
    objective: () => {
      const score = $("#history-score").value, own = score === data.objective;
      const of = (run) => (own ? run.history : (data.steps[run.run] || {})[score]) || { step: [] };
      return [["run", "step (training steps)", own ? `${score} (${data.better} is better)` : score, "low (95 %)", "high (95 %)"],
        ...data.runs.flatMap((run) => of(run).step.map((step, at) =>
          [run.run, step, of(run).value[at], of(run).low[at], of(run).high[at]]))];
    },
    bins: () => [["run", "step (training steps)", "bin", "share (of its real share)"],
      ...data.runs.filter((run) => run.bins).flatMap((run) => run.bins.names.flatMap((bin, row) =>
        run.bins.steps.map((step, at) => [run.run, step, bin, run.bins.ratios[row][at]])))],
    "quality-diversity": () => {
      const keys = ["temperature", "self_bleu_4", "bleu_4", "lm_reverse", "lm_forward"];
      const units = { lm_reverse: " (nats a word)", lm_forward: " (nats a word)" };
      const runs = data.runs.filter((run) => run.temperature);
      return [["run", ...keys.map((key) => key + (units[key] || "")), "n (sentences)"],
        ...runs.flatMap(({ run, temperature: { points, real, n } }) => [
          ...points.temperature.map((_, at) => [run, ...keys.map((key) => points[key][at]), n]),
          ["real sentences", ...keys.map((key) => real[key]), n]])];
    },
    beside: () => {
      const keys = PLANES.flatMap(([across, up]) => [across, up]), { curves, points } = data.beside;
      return [["model", "temperature", ...keys.flatMap((key) => [key, `${key} standard error`]), "better than maximum likelihood"],
        ...curves.flatMap((each) => each.temperature.map((at, row) =>
          [each.name, at, ...keys.flatMap((key) => [each[key][row], null]), null])),
        ...points.map((each) => [each.name, 1, ...keys.flatMap((key) => [each[key], each[`${key}_error`]]), each.answer])];
    },
    survival: () => [["system", "step (training steps)", "at risk (runs)", "failures", "not failed (share)", "low (95 %)", "high (95 %)"],
      ...data.survival.flatMap((each) => each.rows.map((row) => [each.name, ...row]))],
    budget: () => [["system", "budget (trials)", "best, median", "low (95 %)", "high (95 %)", "best, mean", "on the holdout, mean", "n (trials)"],
      ...data.budget.flatMap((each) => each.trials.map((trials, at) =>
        [each.name, trials, each.median[at], each.low[at], each.high[at], each.expected[at], each.chosen[at], each.n]))],
    curves: () => [["run", "scalar", "step (training steps)", "value"],
      ...data.runs.flatMap((run) => Object.entries(run.curves || {}).flatMap(([scalar, curve]) =>
        curve.step.map((step, at) => [run.run, scalar, step, curve.value[at]])))],
    trials: () => {
      const names = unique(data.trials.flatMap((trial) => Object.keys(trial.config)));
      return [["trial", "system", ...names, `${data.objective} (${data.better} is better)`], ...data.trials.map((trial) =>
        [trial.trial, trial.system, ...names.map((each) => plain(trial.config[each])), trial.value])];
    },
  };
  const plain = (value) => value !== null && typeof value === "object" ? JSON.stringify(value) : typeof value === "boolean" ? String(value) : value;

  function savablePictures() {
    const address = { "": (figure) => $("img", figure)?.src, real: () => $("#real-picture")?.getAttribute("href") };
    for (const figure of $$("figure")) {
      const real = figure.classList.contains("real-samples"), found = address[real ? "real" : ""](figure);
      if (!found || !$("figcaption", figure)) continue;
      const name = real ? "real" : figure.closest("[data-run]")?.dataset.run || "samples";
      $("figcaption", figure).append(button("PNG", `save ${name}`, () => saved(found, `${data.sweep}-${name}.png`)));
    }
  }

  // ---- controls

  const show = (what) => { $(`.controls[data-for="${what}"]`).hidden = false; };
  function empty(box, text) {
    box.className = "empty";
    box.textContent = text;
  }
  function fill(select, options) {
    const before = select.value;
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    if (options.some(([value]) => value === before)) select.value = before;
  }

  function pictures() {
    const box = $("#pictures");
    if (!box) return;
    const articles = $$("article", box), slider = $("#step"), told = $(".slider output");
    const stepOf = (figure) => Number(figure.dataset.step || Infinity);
    const steps = unique($$("figure:not(.real-samples)", box).map(stepOf)).sort((a, b) => a - b);
    slider.max = slider.value = steps.length - 1;
    const choose = () => {
      const step = steps[slider.value];
      told.textContent = step === Infinity ? "final" : step;
      for (const article of articles) { // a run that ended earlier shows its last picture
        const figures = $$("figure:not(.real-samples)", article), upTo = figures.filter((figure) => stepOf(figure) <= step);
        const chosen = upTo.at(-1) || figures[0];
        figures.forEach((figure) => figure.classList.toggle("shown", figure === chosen));
      }
    };
    for (const button of $$("[data-layout]")) button.onclick = () => {
      $$("[data-layout]").forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
      box.className = button.dataset.layout;
      $(".slider").hidden = button.dataset.layout !== "gallery";
    };
    slider.oninput = choose;
    choose();
    for (const strip of $$(".strip", box)) strip.scrollLeft = strip.scrollWidth; // the last step, beside the real ones
    show("samples");
  }

  function sortable(table) {
    const body = $("tbody", table), heads = $$("th", table);
    const value = (row, place) => {
      const cell = row.cells[place], text = cell.dataset.value ?? cell.textContent.trim();
      return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
    };
    heads.forEach((head, place) => {
      if (head.classList.contains("plain")) return;
      // No <button>: in a heading that is repeated on the next sheet of paper it would be blank.
      const button = document.createElement("span");
      button.setAttribute("role", "button");
      button.tabIndex = 0;
      button.onkeydown = (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        button.click();
      };
      button.append(...head.childNodes);
      head.append(button);
      button.onclick = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].map((row) => [value(row, place), row]);
        rows.sort(([a], [b]) => (a === null) - (b === null)
          || (down ? -1 : 1) * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
        body.append(...rows.map(([, row]) => row));
      };
    });
  }

  const figures = () => { history(); survival(); budget(); modes(); quality(); beside(); training(); $("#parallel").replaceChildren(); parallel(); };
  $$("table.sortable").forEach(sortable);
  pictures();
  savablePictures();
  figures();
  addEventListener("beforeprint", () => $$("img").forEach((image) => { image.loading = "eager"; }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", figures);
  // Paper has another width and is light: what was drawn for the screen would be cut off, or be bright on white.
  matchMedia("print").addEventListener("change", figures);
})();
