"use strict";
// The page: once in a report, again and again in the dashboard. Text of the run enters it as text nodes.
const planner = (() => {
  const TABLE_ROWS = 24, MOST_CHANGES = 200, NEAR = 200;  // pixels below the window in which charts are drawn too
  const {told, ms, until, clock, duration, figure} = run;
  const byId = id => document.getElementById(id);
  const near = new IntersectionObserver(() => draw(), {rootMargin: `${NEAR}px 0px`});
  let all = null, zoomed = null, drawing = false, drawn = 0;

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // Charts with their words and tables

  function chartSection(chart) {
    const plot = element("div", {class: "chart", id: chart.id, role: "img"});
    const caption = element("figcaption", {id: chart.id + "-says"});
    const box = element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${chart.title}`});
    const details = element("details", {}, element("summary", {}, "As a table"), box);
    const section = element("section", {"aria-labelledby": chart.id + "-title"},
      element("h2", {id: chart.id + "-title"}, chart.title), element("figure", {}, plot, caption), details);
    if (chart.isTimeline) {
      section.className = "wide";
      const chips = Object.entries(told.facts.kinds).map(([kind, words]) => element("li", {}, chip(kind), words));
      details.before(element("ul", {class: "legend"}, ...chips, element("li", {}, "△ ▽ another number of replicas was decided")));
    }
    chart.fill = () => details.open && box.replaceChildren(chart.isTimeline ? changesTable() : curvesTable(chart));
    details.addEventListener("toggle", chart.fill);
    return Object.assign(chart, {plot, caption, section}).section;
  }

  function build() {
    near.disconnect();
    all = charts.shown();
    byId("charts").replaceChildren(...all.map(chartSection));
    byId("about").textContent = told.facts.about.join(" · ");
    all.forEach(chart => near.observe(chart.plot));
  }

  const isBuilt = () => all && charts.shown().map(chart => chart.id).join() === all.map(chart => chart.id).join();

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
    const every = told.changes.flatMap(change => change.at.map((at, i) => ({at, role: change.role, i, change})));
    every.sort((a, b) => b.at - a.at);
    const rows = every.slice(0, MOST_CHANGES).map(({at, role, i, change}) =>
      [clock(ms(at)), role, change.reason[i], [change.text[i], "long"]]);
    return table(["Time", "Role", "Reason", "Explanation"], rows);
  }

  const between = ({low, high}) => low === high ? figure(low) : `${figure(low)} to ${figure(high)}`;

  function curvesTable(chart) {
    const shown = charts.known(chart), start = ms(0), end = ms(told.facts.end_s) + 1, step = (end - start) / TABLE_ROWS;
    const last = shown.map(() => NaN);
    const rows = Array.from({length: TABLE_ROWS}, (_, row) => {
      const from = start + row * step;
      return [clock(from), ...shown.map((each, i) => {
        const found = run.extremes(run.curve(each.curve), from, from + step, chart.step ? last[i] : NaN);
        last[i] = found.last;
        return [isNaN(found.low) ? "–" : between(found), "number"];
      })];
    });
    return table(["From", ...shown.map(each => `${each.name}, ${chart.unit}`)], rows);
  }

  function says(chart) {
    if (chart.isTimeline) return `What each loop found, by role: ${told.lanes.map(charts.laneName).join(", ") || "nothing yet"}. ` +
      "Where there is room for one of several decisions, the most notable is shown.";
    const parts = charts.known(chart).map(each => {
      const found = run.extremes(run.curve(each.curve), -Infinity, Infinity, NaN);
      return isNaN(found.low) ? null : `${each.name} ${between(found)}`;
    });
    return parts.filter(Boolean).join(", ") + ` ${chart.unit}`;
  }

  // What a decision said, beside the pointer

  function point(plot, event) {
    const tip = byId("tip"), box = plot.querySelector(".nsewdrag").getBoundingClientRect();
    const share = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const isInside = share.every(each => each >= 0 && each < 1);
    const found = isInside && charts.pointed(share, rangeShown(), box.width, box.height);
    tip.hidden = !found;
    if (!found) return;
    const [moments, i] = found;
    tip.replaceChildren(element("strong", {}, `${clock(ms(moments.at[i]))} ${moments.loop || moments.role}: ${moments.reason[i]}`),
      element("p", {}, moments.text[i]));
    const {width, height} = tip.getBoundingClientRect(), below = event.clientY + 16;
    tip.style.left = Math.max(4, Math.min(event.clientX + 12, document.documentElement.clientWidth - width - 4)) + "px";
    tip.style.top = (below + height < innerHeight ? below : Math.max(4, event.clientY - height - 12)) + "px";
  }

  // Drawing: what is seen first, the rest when there is time; once drawn, only what is seen is kept up to date

  const stale = within => all.find(({stale, plot}) => {
    const {top, bottom} = plot.getBoundingClientRect();
    return stale && bottom > -within && top < innerHeight + within;
  });

  const next = () => stale(0) || stale(NEAR) || all.find(chart => !chart.isDrawn);

  const rangeShown = () => zoomed || [ms(0), until()];

  function drawChart(chart) {
    const range = rangeShown(), {plot} = chart;
    const traces = charts.traces(chart, range, Math.max(200, plot.clientWidth), plot.clientHeight - 48);
    chart.caption.textContent = says(chart);
    plot.setAttribute("aria-label", `${chart.title}: ${chart.caption.textContent}`);
    Plotly.react(plot, traces, charts.layout(chart, range, ++drawn), {responsive: true, displayModeBar: false, doubleClick: "autosize"});
    if (!chart.isDrawn) plot.on("plotly_relayout", zoom);
    if (!chart.isDrawn && chart.isTimeline) {
      for (const kind of ["pointermove", "click"]) plot.addEventListener(kind, event => point(plot, event));
      plot.addEventListener("pointerleave", () => { byId("tip").hidden = true; });
    }
    chart.isDrawn = true;
    chart.stale = false;
    chart.fill();
  }

  // One chart after the other, so that the page answers meanwhile.
  async function draw() {
    if (drawing || !all || document.hidden) return;
    drawing = true;
    document.body.dataset.busy = "yes";
    try {
      for (let chart = next(); chart; chart = next()) {
        drawChart(chart);
        await new Promise(done => setTimeout(done));
        if (!stale(0)) document.body.dataset.seen ??= performance.now().toFixed();
      }
    } finally {
      drawing = false;
      delete document.body.dataset.busy;
      document.body.dataset.all ??= performance.now().toFixed();  // with `seen`, for benchmarks: ms since the navigation
      document.body.dataset.drawn = String(drawn);
    }
  }

  function drawAnew() {
    all.forEach(chart => { chart.stale = true; });
    draw();
  }

  // Zooming into one chart zooms into all of them.
  function zoom(event) {
    const isWhole = "xaxis.autorange" in event, from = event["xaxis.range[0]"] ?? event["xaxis.range"]?.[0];
    if (!isWhole && from === undefined) return;
    const to = event["xaxis.range[1]"] ?? event["xaxis.range"]?.[1];
    // plotly gives times of day without a zone, which are those of UTC; days alone and numbers are UTC anyway
    const asMs = at => +new Date(String(at).includes(" ") ? at.replace(" ", "T") + "Z" : at);
    zoomed = isWhole ? null : [from, to].map(asMs);
    drawAnew();
  }

  // The rest of the page

  function showSpan() {
    const {end_s, since_epoch, skipped} = told.facts;
    const left = skipped ? ` · ${skipped} ticks left out, since their time was not after the one before` : "";
    byId("span").textContent = `${clock(ms(0))} to ${clock(ms(end_s))}${since_epoch ? " UTC" : ""} (${duration(end_s)})${left}`;
  }

  const span = (kind, words) => element("span", {}, chip(kind), words);

  function showNow() {
    const {now} = told;
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

  function refresh() {
    if (!isBuilt()) build();
    showSpan();
    showNow();
    drawAnew();
  }

  function show(data) {
    run.take(data);
    refresh();
  }

  // One more tick, as tick_of() of the dashboard gives it.
  function append(tick) {
    run.add(tick);
    if (tick.changes.length) byId("news").textContent = tick.changes.map(each => each.text[0].split(";")[0]).join(". ");
    refresh();
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => all && drawAnew());
  document.addEventListener("visibilitychange", () => draw());
  addEventListener("beforeprint", () => all && all.filter(chart => chart.stale).forEach(drawChart));
  return {show, append};
})();
