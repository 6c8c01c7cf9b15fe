"use strict";
// What is in each chart: lines, or the timeline of decisions; as plotly takes it.
const charts = (() => {
  const ISOLATED = 4, TRIANGLE = 10, LANE_GAP = 6, MINUTE = 60000, DAY = 86400000;
  const coarse = matchMedia("(pointer: coarse)");
  const isNarrow = () => innerWidth < 600;
  const css = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const {told, ms, until} = run;

  const line = (name, curve, colour, dash = "solid", width = 1.6) => ({name, curve, colour, dash, width});

  const byRole = (curve, without) => told.facts.roles.filter(role => role !== without).map(role =>
    line(role, `${role}.${curve}`, ...role === "decode" ? ["orange", "dash"] : ["blue"]));

  const definitions = () => [
    {id: "decisions", title: "Decisions", isTimeline: true},
    ...told.facts.roles.map(role => ({
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
    {id: "kv", title: "KV cache in use or asked for", unit: "of the cache", lines: byRole("kv_utilisation", "prefill")},
    {id: "queue", title: "Prompt tokens that wait", unit: "tokens", lines: byRole("queued_prefill_tokens", "decode")},
  ];

  const known = chart => chart.lines.filter(each => run.has(each.curve));

  // The charts of which anything is known.
  const shown = () => definitions().filter(chart => chart.isTimeline || known(chart).length);

  // Lines

  function scatter(each, chart, range, pixels) {
    const {x, y} = run.thinned(run.curve(each.curve), ...range, pixels);
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

  function band(edges, range, pixels) {
    if (!edges.every(run.has)) return [];
    const [below, above] = edges.map(name => segments(run.thinned(run.curve(name), ...range, pixels)));
    const points = above.flatMap((segment, i) => below[i] ? [...segment, ...below[i].reverse(), segment[0], [null, null]] : []);
    return [{x: points.map(p => p[0]), y: points.map(p => p[1]), name: "forecast, 90 %", mode: "lines", fill: "toself",
      fillcolor: css("band"), line: {width: 0}, hoverinfo: "skip"}];
  }

  // The timeline: thick lines, a row for each lane; at a pixel where several things were found, the most notable

  const laneName = lane => `${lane.role} ${lane.loop}`;

  const rowOf = ({role}) => told.lanes.findIndex(lane => lane.role === role);

  // Where a pause begins, and for how long a tick holds: of two that are further apart, the first for half of that.
  function held() {
    const hold = told.facts.hold_s + 2 * told.facts.bucket_s;
    const times = [...new Set(told.lanes.flatMap(lane => lane.at))].sort((a, b) => a - b);
    return [times.filter((at, i) => i + 1 < times.length && times[i + 1] - at > hold), hold];
  }

  // What a row shows: from when until when it is of which kind, and of which of the lane's moments.
  function blocks(lane, range, pixels, breaks, hold) {
    const kinds = Object.keys(told.facts.kinds), bucket = told.facts.bucket_s, fine = bucket <= 1;
    const width = (range[1] - range[0]) / pixels, end = until();
    const column = at => fine ? ms(at) : ms(bucket * Math.floor((told.facts.start_s + at) / bucket) - told.facts.start_s);
    const found = [];
    const show = (from, to, place) => to > from && to > range[0] && from < range[1] && found.push({from, to, place});
    let pause = 0;
    for (let i = 0; i < lane.at.length;) {
      const from = column(lane.at[i]), pixel = Math.floor((from - range[0]) / width);
      let best = i, last = i;
      for (; i < lane.at.length && Math.floor((column(lane.at[i]) - range[0]) / width) === pixel; last = i++)
        if (kinds.indexOf(lane.kind[i]) > kinds.indexOf(lane.kind[best])) best = i;
      while (pause < breaks.length && breaks[pause] < lane.at[last]) pause++;
      const next = i < lane.at.length ? column(lane.at[i]) : end;
      const to = Math.min(next, pause < breaks.length ? column(breaks[pause]) + 500 * hold : end);
      const split = best === last ? to : Math.min(to, from + width);
      show(from, split, best);
      show(split, to, last);
    }
    return found;
  }

  function timeline(range, pixels, height) {
    const found = held(), rows = told.lanes.map(lane => blocks(lane, range, pixels, ...found));
    const thickness = Math.max(4, height / told.lanes.length - LANE_GAP);
    const bars = Object.keys(told.facts.kinds).map(kind => {
      const x = [], y = [];
      rows.forEach((row, number) => {
        const ofKind = row.filter(({place}) => told.lanes[number].kind[place] === kind);
        ofKind.forEach(({from, to}, i) => {
          const goesOn = i + 1 < ofKind.length && ofKind[i + 1].from === to;
          if (!i || ofKind[i - 1].to !== from) { x.push(from); y.push(number); }
          if (!goesOn) { x.push(to, null); y.push(number, null); }
        });
      });
      return {x, y, mode: "lines", line: {color: css(kind), width: thickness, simplify: false}};
    });
    return [...bars, ...told.changes.map(change => triangles(change, range, pixels))];
  }

  // What the timeline shows at a share of its width and height: a change under a triangle, else a moment of the row;
  // gives the columns that it stands in and its place there, or nothing.
  function pointed([across, down], range, pixels, height) {
    const at = range[0] + across * (range[1] - range[0]), row = Math.floor(down * told.lanes.length), lane = told.lanes[row];
    if (!lane) return null;
    const off = Math.abs(down - (row + .5) / told.lanes.length) * height, reach = TRIANGLE / 2 * (range[1] - range[0]) / pixels;
    const far = (change, i) => Math.abs(ms(change.at[i]) - at);
    const marks = off > TRIANGLE / 2 || rowOf(lane) !== row ? [] : told.changes.filter(change => change.role === lane.role)
      .flatMap(change => [...change.at.keys()].filter(i => far(change, i) <= reach).map(i => [change, i]));
    if (marks.length) return marks.reduce((best, each) => far(...each) < far(...best) ? each : best);
    const found = blocks(lane, range, pixels, ...held()).find(({from, to}) => from <= at && at < to);
    return found ? [lane, found.place] : null;
  }

  // Where another number of replicas was decided; of those that would cover each other, the first.
  function triangles(change, range, pixels) {
    const row = rowOf(change), width = (range[1] - range[0]) / pixels * 1.5 * TRIANGLE;  // with its edge
    const cell = i => Math.floor((ms(change.at[i]) - range[0]) / width);
    const places = [...change.at.keys()].filter(i => !i || cell(i) !== cell(i - 1));
    return {x: places.map(i => ms(change.at[i])), y: places.map(() => row), mode: "markers", cliponaxis: false,
      marker: {symbol: `triangle-${change.way}`, size: TRIANGLE, color: css("page"), line: {color: css("text"), width: 1.4}}};
  }

  function traces(chart, range, pixels, height) {
    if (chart.isTimeline) return timeline(range, pixels, height);
    return [...(chart.band ? band(chart.band, range, pixels) : []),
      ...known(chart).flatMap(each => scatter(each, chart, range, pixels))];
  }

  // Axes and the rest

  // Few things are counted by whole numbers.
  function whole(chart) {
    const highest = Math.max(...known(chart).map(each => run.extremes(run.curve(each.curve), -Infinity, Infinity, NaN).high));
    return chart.step && highest <= 5 ? {dtick: 1} : {};
  }

  function layout(chart, range, revision) {
    const axis = {gridcolor: css("line"), linecolor: css("line"), zeroline: false, automargin: true};
    const {since_epoch: isReal} = told.facts;
    const day = {dtickrange: [DAY, null], value: isReal ? "%b %-d" : "day %-j"};
    const formats = ["%H:%M:%S", "%H:%M"].map((value, i) => ({value: value + (isReal ? "\n%b %-d" : "\nday %-j"),
      dtickrange: i ? [MINUTE, DAY] : [null, MINUTE]}));
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: "same", datarevision: revision,
      font: {color: css("text"), size: 12, family: "system-ui, sans-serif"},
      margin: {l: 48, r: 10, t: 8, b: 40}, dragmode: coarse.matches ? false : "zoom",
      hovermode: chart.isTimeline ? false : "x unified",
      hoverlabel: {bgcolor: css("raised"), bordercolor: css("line"), font: {color: css("text"), size: 12}, align: "left", namelength: -1},
      showlegend: !chart.isTimeline, legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom"},
      xaxis: {...axis, type: "date", range: [...range], uirevision: revision, tickangle: 0,
        nticks: isNarrow() ? (chart.isTimeline ? 3 : 4) : 9,
        tickformatstops: [...formats, day], hoverformat: isReal ? "%Y-%m-%d %H:%M:%S" : "day %-j %H:%M:%S"},
      yaxis: chart.isTimeline ? {...axis, range: [told.lanes.length - .5, -.5], fixedrange: true, showgrid: false,
        tickvals: [...told.lanes.keys()], ticktext: told.lanes.map(lane => laneName(lane).replace(" ", isNarrow() ? "<br>" : " "))} :
        {...axis, ...whole(chart), rangemode: "tozero", separatethousands: true, title: {text: chart.unit, standoff: 6}},
    };
  }

  return {shown, known, laneName, pointed, traces, layout};
})();
