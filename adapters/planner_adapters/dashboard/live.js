"use strict";
// Feeds the page from the planner's event stream. The browser itself reconnects; each connection begins with a snapshot.
(() => {
  const link = document.getElementById("link");
  let last = null, ticks = 0, isOpen = false;

  function say() {
    const age = last === null ? "no tick yet" : `last tick ${Math.round((performance.now() - last) / 1000)} s ago`;
    link.textContent = isOpen ? `Live, ${age}.` : `Connection lost, ${age}; trying again.`;
    link.className = isOpen ? "" : "bad";
  }

  const source = new EventSource("events");
  const on = (name, take) => source.addEventListener(name, event => {
    const data = JSON.parse(event.data);
    const made = data.now.made_s_ago;
    last = made === null ? null : performance.now() - 1000 * made;
    take(data);
    document.body.dataset.ticks = String(name === "tick" ? ++ticks : ticks);
    say();
  });
  on("snapshot", planner.show);
  on("tick", planner.append);
  source.addEventListener("open", () => { isOpen = true; say(); });
  source.addEventListener("error", () => { isOpen = false; say(); });
  document.body.classList.add("is-live");
  setInterval(say, 1000);
  say();
})();
