// The page's own record: the events of its media element with their times, and a table of its positions. It is posted as it grows;
// the answer contains what the page does next. Times are wall-clock seconds of this page's clock: `t` of the event, `heard` of its
// arrival at the page's scripts.
"use strict";

const settings = Object.fromEntries(new URLSearchParams(location.search));
const wall = (at = performance.now()) => (performance.timeOrigin + at) / 1000;
const record = { events: [], rows: [], info: null };

function note(ev, more = {}, at = undefined) {
  record.events.push({ t: wall(at), heard: wall(), ev, ...more });
}

function bufferedAhead(video) {
  for (let i = 0; i < video.buffered.length; i++) {
    if (video.buffered.start(i) <= video.currentTime + 0.1 && video.currentTime < video.buffered.end(i)) {
      return video.buffered.end(i) - video.currentTime;
    }
  }
  return 0;
}

/** Watches a media element; `actions` maps what the test may ask for to functions. */
function watch(video, actions) {
  const events = ["play", "playing", "pause", "waiting", "stalled", "seeking", "seeked", "ended", "emptied", "error", "ratechange", "loadeddata"];
  for (const ev of events) {
    video.addEventListener(ev, ({ timeStamp }) => {
      note(ev, { ct: video.currentTime, paused: video.paused, ready: video.readyState, ahead: bufferedAhead(video) }, timeStamp);
    });
  }
  document.addEventListener("visibilitychange", () => note(document.hidden ? "hidden" : "shown"));
  window.addEventListener("error", (error) => note("page-error", { text: String(error.message) }));
  window.addEventListener("unhandledrejection", (error) => note("page-error", { text: String(error.reason) }));
  setInterval(() => {
    record.rows.push([wall(), video.currentTime, video.paused, video.readyState, bufferedAhead(video), document.hidden]);
  }, 100);
  post(actions);
}

async function post(actions) {
  const { events, rows, info } = record;
  Object.assign(record, { events: [], rows: [], info: null });
  try {
    const answer = await fetch(`/record/${settings.name}`, { method: "POST", body: JSON.stringify({ events, rows, info }) });
    for (const action of await answer.json()) {
      note("asked", { action });
      actions[action]();
    }
  } catch (error) {
    record.events.unshift(...events);
    record.rows.unshift(...rows);
    record.info ??= info;
  }
  setTimeout(() => post(actions), 200);
}
