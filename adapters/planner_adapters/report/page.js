"use strict";
// Draws what data_of() of page.py gives: once in a report, again and again in the dashboard.
// Text of the run enters the page as text nodes, or escaped where plotly would read markup.
const planner = (() => {
  const ISOLATED = 4, TABLE_ROWS = 24, MOST_CHANGES = 200, MINUTE = 60000, DAY = 86400000;
  const YEAR = 365 * DAY;  // where simulated time begins: plotly takes 1970 and other short numbers for years
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)");
  let facts, curves, lanes, changes, now, charts, zoomed = null, busy = false, drawing = false, again = false;
  let drawn = 0;  // plotly looks for new points in the same arrays only if this is another number

  // Words

  const css = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const byId = id => document.getElementById(id);
  const safe = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const two = number => String(number).padStart(2, "0");
  const figure = value => Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(4));

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function folded(text) {
    const width = Math.max(34, Math.min(100, Math.floor(innerWidth / 9)));
    const lines = [""];
    for (const word of text.split(/\s+/)) {
      for (let rest = word; rest; rest = rest.slice(width)) {
        const piece = rest.slice(0, width), last = lines.length - 1;
        if (lines[last] && lines[last].length + 1 + piece.length > width) lines.push(piece);
        else lines[last] += (lines[last] ? " " : "") + piece;
      }
    }
    return lines.map(safe).join("<br>");
  }

  const ms = at => 1000 * (facts.start_s + at) + (facts.since_epoch ? 0 : YEAR);

  // a little after the last tick, so that its column is seen
  const until = () => ms(facts.end_s + Math.max(facts.bucket_s, facts.end_s / 300));

  function clock(at_ms) {
    const at = new Date(at_ms);
    const day = facts.since_epoch ? at.toISOString().slice(0, 10) : "day " + (1 + Math.floor((at_ms - YEAR) / DAY));
    return `${day} ${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`;
  }

  function duration(seconds) {
    if (seconds < 120) return figure(seconds) + " s";
    return seconds < 7200 ? figure(seconds / 60) + " min" : figure(seconds / 3600) + " h";
  }

  // Charts: what is in each

  const line = (name, curve, colour, dash = "solid", width = 1.6) => ({name, curve, colour, dash, width});

  const byRole = (curve, without) => facts.roles.filter(role => role !== without).map(role =>
    line(role, `${role}.${curve}`, role === "decode" ? "orange" : "blue"));

  const definitions = () => [
    ...facts.roles.map(role => ({
      id: `replicas-${role}`, title: `Replicas: ${role}`, unit: "replicas", step: true, lines: [
        line("ready", `${role}.ready`, "blue", "solid", 2), line("wanted", `${role}.wanted`, "text", "dot"),
        line("starting", `${role}.starting`, "orange"), line("draining", `${role}.draining`, "pink"),
        line("floor", `${role}.floor`, "grey", "dash")]})),
    {id: "gpus", title: "GPUs", unit: "GPUs", step: true, lines: [
      line("in use", "gpus", "blue", "solid", 2), line("wanted", "gpus_wanted", "text", "dot"),
      line("budget", "gpu_budget", "red", "dash")]},
    {id: "rate", title: "Requests", unit: "requests/s", band: ["forecast_low_rps", "forecast_high_rps"], lines: [
      line("forecast", "forecast_rps", "orange", "dash", 2), line("arrived", "rate_rps", "blue", "solid", 1.2)]},
    ...[["ttft", "Time to first token"], ["itl", "Inter-token latency"]].map(([id, title]) => ({
      id, title: `${title} (${id.toUpperCase()})`, unit: "ms", lines: [
        line("estimated", `estimated_${id}_ms`, "orange", "solid", 1.2), line("observed", `observed_${id}_ms`, "blue"),
        line("target", `target_${id}_ms`, "red", "dash", 2)]})),
    ...[["isl", "Input tokens per request (ISL)"], ["osl", "Output tokens per request (OSL)"]].map(([id, title]) => ({
      id, title, unit: "tokens", lines: [
        line("arrived", id, "blue", "solid", 1.2), line("forecast", `forecast_${id}`, "orange", "dash", 2)]})),
    {id: "capacity", title: "Capacity of a replica within the SLA", unit: "requests/s", lines: byRole("capacity_rps")},
    {id: "kv", title: "KV cache in use or asked for", unit: "share", lines: byRole("kv_utilisation", "prefill")},
    {id: "queue", title: "Prompt tokens that wait", unit: "tokens", lines: byRole("queued_prefill_tokens", "decode")},
  ];

  const known = chart => chart.lines.filter(each => curves[each.curve]);

  // Traces

  function scatter(each, chart) {
    const {x, y} = curves[each.curve];
    const style = {name: each.name, legendgroup: each.name, hovertemplate: "%{y:.4~g}"};
    const traces = [{...style, x, y, mode: "lines", line: {
      color: css(each.colour), dash: each.dash, width: each.width, shape: chart.step ? "hv" : "linear"}}];
    const lone = [...y.keys()].filter(i => !isNaN(y[i]) && isNaN(y[i - 1] ?? NaN) && isNaN(y[i + 1] ?? NaN));
    if (lone.length) traces.push({...style, x: lone.map(i => x[i]), y: lone.map(i => y[i]), mode: "markers",
      showlegend: false, hoverinfo: "skip", hovertemplate: null, marker: {color: css(each.colour), size: ISOLATED}});
    return traces;
  }

  function segments({x, y}) {
    const found = [[]];
    y.forEach((value, i) => isNaN(value) ? found.push([]) : found[found.length - 1].push([x[i], value]));
    return found.filter(segment => segment.length);
  }

  function band([low, high]) {
    if (!curves[low] || !curves[high]) return [];
    const below = segments(curves[low]), above = segments(curves[high]);
    const points = above.flatMap((segment, i) => below[i] ? [...segment, ...below[i].reverse(), segment[0], [null, null]] : []);
    return [{x: points.map(p => p[0]), y: points.map(p => p[1]), name: "forecast, 90 %", mode: "lines", fill: "toself",
      fillcolor: css("band"), line: {width: 0}, hoverinfo: "skip"}];
  }

  const laneName = lane => `${lane.role} ${lane.loop}`;

  function timeline() {
    const kinds = Object.keys(facts.kinds), pause = 1000 * (facts.hold_s + 2 * facts.bucket_s);
    const texts = lanes.map(lane => lane.text.map((text, i) =>
      folded(`${clock(ms(lane.at[i]))} ${lane.loop}: ${lane.reason[i]}`) + "<br>" + folded(text)));
    // one column per bucket; without this each timeline's own times would cut those of the others
    const width = facts.bucket_s, fine = width <= 1;
    const column = at => fine ? ms(at) : ms(width * Math.floor((facts.start_s + at) / width) - facts.start_s);
    const times = [...new Set(lanes.flatMap(lane => lane.at.map(column)))].sort((a, b) => a - b);
    const edges = [];
    times.forEach((at, i) => {
      if (i && at - times[i - 1] > pause) edges.push({at: times[i - 1] + pause / 2, blank: true});
      edges.push({at});
    });
    const places = lanes.map(() => -1);
    const z = lanes.map(() => []), text = lanes.map(() => []);
    for (const edge of edges) {
      lanes.forEach((lane, row) => {
        while (places[row] + 1 < lane.at.length && column(lane.at[places[row] + 1]) <= edge.at) places[row]++;
        const place = edge.blank ? -1 : places[row];
        z[row].push(place < 0 ? null : kinds.indexOf(lane.kind[place]));
        text[row].push(place < 0 ? "" : texts[row][place]);
      });
    }
    const scale = kinds.flatMap((kind, i) => [[i / kinds.length, css(kind)], [(i + 1) / kinds.length, css(kind)]]);
    const heat = {type: "heatmap", x: [...edges.map(edge => edge.at), until()], y: lanes.map(laneName), z, text,
      colorscale: scale, zmin: 0, zmax: kinds.length, showscale: false, ygap: 6, hoverongaps: false,
      hovertemplate: "%{text}<extra></extra>"};
    heat.z = heat.z.map(row => row.map(value => value === null ? null : value + .5));
    const marks = changes.map(change => {
      const lane = lanes.find(each => each.role === change.role);
      return {x: change.at.map(ms), y: change.at.map(() => laneName(lane)), mode: "markers", name: change.way,
        text: change.text.map((text, i) => folded(clock(ms(change.at[i]))) + "<br>" + folded(text)),
        hovertemplate: "%{text}<extra></extra>", marker: {symbol: `triangle-${change.way}`, size: 10,
          color: css("page"), line: {color: css("text"), width: 1.4}}};
    });
    return [heat, ...marks];
  }

  function layout(chart) {
    const axis = {gridcolor: css("line"), linecolor: css("line"), zeroline: false, automargin: true};
    const whole = [ms(0), until()];
    const day = {dtickrange: [DAY, null], value: facts.since_epoch ? "%b %-d" : "day %-j"};
    const formats = ["%H:%M:%S", "%H:%M"].map((value, i) => ({value: value + (facts.since_epoch ? "\n%b %-d" : "\nday %-j"),
      dtickrange: i ? [MINUTE, DAY] : [null, MINUTE]}));
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: "same", datarevision: drawn,
      font: {color: css("text"), size: 12, family: "system-ui, sans-serif"},
      margin: {l: 48, r: 10, t: 8, b: 40}, dragmode: coarse.matches ? false : "zoom",
      hovermode: chart.timeline ? "closest" : "x unified",
      hoverlabel: {bgcolor: css("raised"), bordercolor: css("line"), font: {color: css("text"), size: 12}, align: "left", namelength: -1},
      showlegend: !chart.timeline, legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom"},
      xaxis: {...axis, type: "date", range: zoomed || whole, nticks: innerWidth < 600 ? 5 : 9,
        tickformatstops: [...formats, day], hoverformat: facts.since_epoch ? "%Y-%m-%d %H:%M:%S" : "day %-j %H:%M:%S"},
      yaxis: chart.timeline ? {...axis, autorange: "reversed", fixedrange: true} :
        {...axis, rangemode: "tozero", title: {text: chart.unit, standoff: 6}},
    };
  }

  // The page

  function chartSection(chart) {
    const plot = element("div", {class: "chart", id: chart.id, role: "img"});
    const caption = element("figcaption", {id: chart.id + "-says"});
    const box = element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${chart.title}`});
    const details = element("details", {}, element("summary", {}, "As a table"), box);
    const section = element("section", {"aria-labelledby": chart.id + "-title"},
      element("h2", {id: chart.id + "-title"}, chart.title), element("figure", {}, plot, caption), details);
    if (chart.timeline) {
      section.className = "wide";
      const chips = Object.entries(facts.kinds).map(([kind, words]) => element("li", {}, chip(kind), words));
      details.before(element("ul", {class: "legend"}, ...chips, element("li", {}, "△ ▽ another number of replicas was decided")));
    }
    chart.fill = () => details.open && box.replaceChildren(chart.timeline ? changesTable() : curvesTable(chart));
    details.addEventListener("toggle", chart.fill);
    Object.assign(chart, {plot, caption});
    return section;
  }

  function build() {
    charts = [{id: "decisions", title: "Decisions", timeline: true}, ...definitions().filter(chart => known(chart).length)];
    byId("charts").replaceChildren(...charts.map(chartSection));
    byId("about").textContent = facts.about.join(" · ");
  }

  function chip(kind) {
    const made = element("span", {class: "kind", "aria-hidden": "true"});
    made.style.background = `var(--${kind})`;
    return made;
  }

  function table(head, rows) {
    const cell = value => Array.isArray(value) ? element("td", {class: value[1]}, value[0]) : element("td", {}, value);
    return element("table", {},
      element("thead", {}, element("tr", {}, ...head.map(name => element("th", {scope: "col"}, name)))),
      element("tbody", {}, ...rows.map(row => element("tr", {}, ...row.map(cell)))));
  }

  function changesTable() {
    const all = changes.flatMap(change => change.at.map((at, i) => ({at, role: change.role, i, change})));
    all.sort((a, b) => b.at - a.at);
    const rows = all.slice(0, MOST_CHANGES).map(({at, role, i, change}) =>
      [clock(ms(at)), role, change.reason[i], [change.text[i], "long"]]);
    return table(["Time", "Role", "Reason", "Explanation"], rows);
  }

  function extremes({x, y}, from, to, before) {
    let low = before, high = before, last = before;
    for (let i = lowerBound(x, from); i < x.length && x[i] < to; i++) {
      last = y[i];
      if (isNaN(y[i])) continue;
      low = isNaN(low) ? y[i] : Math.min(low, y[i]);
      high = isNaN(high) ? y[i] : Math.max(high, y[i]);
    }
    return {low, high, last};
  }

  function lowerBound(x, at) {
    let low = 0, high = x.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (x[middle] < at) low = middle + 1; else high = middle;
    }
    return low;
  }

  function curvesTable(chart) {
    const shown = known(chart), start = ms(0), end = ms(facts.end_s) + 1, step = (end - start) / TABLE_ROWS;
    const last = shown.map(() => NaN);
    const rows = Array.from({length: TABLE_ROWS}, (_, row) => {
      const from = start + row * step;
      return [clock(from), ...shown.map((each, i) => {
        const found = extremes(curves[each.curve], from, from + step, chart.step ? last[i] : NaN);
        last[i] = found.last;
        const {low, high} = found;
        return [isNaN(low) ? "–" : low === high ? figure(low) : `${figure(low)} to ${figure(high)}`, "number"];
      })];
    });
    return table(["From", ...shown.map(each => `${each.name}, ${chart.unit}`)], rows);
  }

  function says(chart) {
    if (chart.timeline) return `What each loop found, by role: ${lanes.map(laneName).join(", ") || "nothing yet"}. ` +
      `Where there is more than one decision in ${duration(facts.bucket_s)}, the most notable is shown.`;
    const parts = known(chart).map(each => {
      const {low, high} = extremes(curves[each.curve], -Infinity, Infinity, NaN);
      return isNaN(low) ? null : `${each.name} ${low === high ? figure(low) : figure(low) + " to " + figure(high)}`;
    });
    return parts.filter(Boolean).join(", ") + ` ${chart.unit}`;
  }

  function drawChart(chart) {
    const traces = chart.timeline ? timeline() :
      [...(chart.band ? band(chart.band) : []), ...known(chart).flatMap(each => scatter(each, chart))];
    const caption = says(chart);
    chart.caption.textContent = caption;
    chart.plot.setAttribute("aria-label", `${chart.title}: ${caption}`);
    Plotly.react(chart.plot, traces, layout(chart), {responsive: true, displayModeBar: false});
    if (!chart.listens) chart.plot.on("plotly_relayout", event => together(chart, event));
    chart.listens = true;
    chart.fill();
  }

  // One chart after the other, so that the page answers meanwhile; what comes during it is drawn after it.
  async function draw() {
    again = true;
    if (drawing) return;
    drawing = true;
    document.body.dataset.busy = "yes";
    try {
      while (again) {
        again = false;
        drawn++;
        const skipped = facts.skipped ? ` · ${facts.skipped} ticks left out, since their time was not after the one before` : "";
        byId("span").textContent = `${clock(ms(0))} to ${clock(ms(facts.end_s))}${facts.since_epoch ? " UTC" : ""}` +
          ` (${duration(facts.end_s)})${skipped}`;
        for (const chart of [...charts]) {
          if (!chart.plot.isConnected) break;
          drawChart(chart);
          await new Promise(done => setTimeout(done));
        }
      }
    } finally {
      drawing = false;
      delete document.body.dataset.busy;
      document.body.dataset.drawn = String(drawn);
    }
  }

  // Zooming into one chart zooms into all of them.
  function together(source, event) {
    if (busy || !("xaxis.range[0]" in event || "xaxis.autorange" in event || "xaxis.range" in event)) return;
    busy = true;
    zoomed = "xaxis.autorange" in event ? null : [...source.plot.layout.xaxis.range];
    const range = zoomed || [ms(0), until()];
    Promise.all(charts.filter(chart => chart.listens).map(chart => Plotly.relayout(chart.plot, {"xaxis.range": [...range]}))).finally(() => { busy = false; });
  }

  function showNow() {
    byId("latest").replaceChildren(...now.latest.map(({kind, sentence}) => element("p", {}, chip(kind), sentence)));
    const missing = now.feeds.filter(feed => !feed.fed).map(feed =>
      `${feed.name} ${feed.age_s === null ? "never came" : "last came " + duration(feed.age_s) + " ago"}`);
    if (now.problems) missing.push(...now.problems);
    byId("inputs").textContent = missing.length ? missing.join("; ") : now.feeds.length ? "Every input comes." : "No tick yet.";
    byId("inputs").className = missing.length ? "bad" : "";
    byId("cards").replaceChildren(...now.cards.map(([label, value, note]) => element("div", {}, element("dt", {}, label),
      element("dd", {class: "value"}, value), ...(note ? [element("dd", {class: "note"}, note)] : []))));
    const sums = {};
    for (const [role, loop, , , seconds] of now.times) sums[role + loop] = (sums[role + loop] || 0) + seconds;
    byId("times").replaceChildren(...table(["Role", "Loop", "Reason", "Time", "Share"], now.times.map(
      ([role, loop, reason, kind, seconds]) => [role, loop, span(kind, reason), [duration(seconds), "number"],
        [(100 * seconds / sums[role + loop]).toFixed(1) + " %", "number"]])).childNodes);
  }

  const span = (kind, words) => element("span", {}, chip(kind), words);
  const floats = text => new Float32Array(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer);

  function show(data) {
    const roles = facts && facts.roles.join();
    ({facts, lanes, changes, now} = data);
    curves = Object.fromEntries(Object.entries(data.curves).map(([name, {at, values}]) =>
      [name, {x: Array.from(floats(at), ms), y: Array.from(floats(values))}]));
    if (!charts || roles !== facts.roles.join() || definitions().some(chart =>
      known(chart).length && !charts.some(each => each.id === chart.id))) build();
    showNow();
    draw();
  }

  // One more tick, as tick_of() of the dashboard gives it.
  function append(tick) {
    now = tick.now;
    facts.end_s = now.at_s - facts.start_s;
    let isNew = false;
    for (const [name, [value, broken]] of Object.entries(tick.values)) {
      isNew = isNew || !curves[name];
      const {x, y} = curves[name] || (curves[name] = {x: [], y: []});
      const at = ms(facts.end_s);
      if (broken && x.length) { x.push((x[x.length - 1] + at) / 2); y.push(NaN); }
      x.push(at);
      y.push(value);
    }
    for (const [list, added] of [[lanes, tick.lanes], [changes, tick.changes]]) {
      for (const each of added) {
        each.at = each.at.map(at => at - facts.start_s);
        const same = list.find(old => old.role === each.role && old.loop === each.loop && old.way === each.way);
        if (!same) list.push(each);
        else for (const column of ["at", "reason", "kind", "text"]) same[column].push(...each[column]);
      }
    }
    if (tick.changes.length) byId("news").textContent = tick.changes.map(each => each.text[0].split(";")[0]).join(". ");
    if (isNew) build();
    showNow();
    if (!document.hidden) draw();
  }

  dark.addEventListener("change", () => charts && draw());
  document.addEventListener("visibilitychange", () => charts && !document.hidden && draw());
  return {show, append};
})();
