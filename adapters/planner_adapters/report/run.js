"use strict";
// What data_of() of page.py and tick_of() of the dashboard tell of a run, and times and figures in words.
const run = (() => {
  const DAY = 86400000, YEAR = 365 * DAY;  // where simulated time begins: plotly takes 1970 and other short numbers for years
  const told = {facts: null, lanes: [], changes: [], now: null};
  let curves = {};

  const two = number => String(number).padStart(2, "0");
  const figure = value => Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(4));
  const ms = at => 1000 * (told.facts.start_s + at) + (told.facts.since_epoch ? 0 : YEAR);

  // a little after the last tick, so that its column is seen
  const until = () => ms(told.facts.end_s + Math.max(told.facts.bucket_s, told.facts.end_s / 300));

  function clock(at_ms) {
    const at = new Date(at_ms);
    const day = told.facts.since_epoch ? at.toISOString().slice(0, 10) : "day " + (1 + Math.floor((at_ms - YEAR) / DAY));
    return `${day} ${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`;
  }

  function duration(seconds) {
    if (seconds < 120) return figure(seconds) + " s";
    return seconds < 7200 ? figure(seconds / 60) + " min" : figure(seconds / 3600) + " h";
  }

  const floats = text => new Float32Array(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer);

  // A curve's times in ms and values, NaN where it breaks; unpacked when it is first asked for.
  function curve(name) {
    const {at, values} = curves[name];
    if (at !== undefined) curves[name] = {x: Array.from(floats(at), ms), y: Array.from(floats(values))};
    return curves[name];
  }

  function take(data) {
    ({facts: told.facts, lanes: told.lanes, changes: told.changes, now: told.now, curves} = data);
  }

  // One more tick.
  function add(tick) {
    const {facts} = told;
    told.now = tick.now;
    facts.end_s = tick.now.at_s - facts.start_s;
    for (const [name, [value, broken]] of Object.entries(tick.values)) {
      if (!curves[name]) curves[name] = {x: [], y: []};
      const {x, y} = curve(name), at = ms(facts.end_s);
      if (broken && x.length) { x.push((x[x.length - 1] + at) / 2); y.push(NaN); }
      x.push(at);
      y.push(value);
    }
    for (const [list, added] of [[told.lanes, tick.lanes], [told.changes, tick.changes]]) {
      for (const each of added) {
        each.at = each.at.map(at => at - facts.start_s);
        const same = list.find(old => old.role === each.role && old.loop === each.loop && old.way === each.way);
        if (!same) list.push(each);
        else for (const column of ["at", "reason", "kind", "text"]) same[column].push(...each[column]);
      }
    }
  }

  function lowerBound(x, at) {
    let low = 0, high = x.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (x[middle] < at) low = middle + 1; else high = middle;
    }
    return low;
  }

  // The lowest, highest and last value of a curve from a time to another; `before` where there is none.
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

  // Of a curve, what a line over so many pixels shows: of each pixel its first, lowest, highest and last point and its
  // first break, as sampling.py keeps them of each bucket; and the points to both sides, for the line goes on to them.
  function thinned({x, y}, from, to, pixels) {
    const first = Math.max(0, lowerBound(x, from) - 1), end = Math.min(x.length, lowerBound(x, to) + 1);
    if (end - first <= 5 * pixels) return {x: x.slice(first, end), y: y.slice(first, end)};
    const kept = [];
    for (let i = first; i < end;) {
      const pixel = Math.floor((x[i] - from) / (to - from) * pixels);
      let begin = -1, low = -1, high = -1, last = -1, gap = -1;
      for (; i < end && Math.floor((x[i] - from) / (to - from) * pixels) === pixel; i++) {
        if (isNaN(y[i])) { if (gap < 0) gap = i; continue; }
        if (begin < 0) begin = low = high = i;
        if (y[i] < y[low]) low = i;
        if (y[i] > y[high]) high = i;
        last = i;
      }
      kept.push(...[...new Set([begin, low, high, last, gap])].filter(place => place >= 0).sort((a, b) => a - b));
    }
    return {x: kept.map(i => x[i]), y: kept.map(i => y[i])};
  }

  return {told, ms, until, clock, duration, figure, take, add, curve, has: name => name in curves, extremes, thinned};
})();
