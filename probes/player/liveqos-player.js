// Reports to a liveqos node what this viewer sees: docs/player.md. A classic script or a module; it sets only `LiveQoS`.
(function (scope) {
  "use strict";

  const TICK = 250;
  const STATS_EVERY = 500;
  const SOONEST = 1000; // between two reports
  const LONGEST_WAIT = 60000;
  const ANSWER_WITHIN = 10000;
  const ASLEEP = 5000; // a tick this late
  const STUCK = 500;
  const MARGIN = 150; // W3C freezeCount, as GAPS
  const GAPS = 30;
  const MOST = 64; // messages per report
  const UNSENT = 55; // seconds; a node accepts 60
  const FINAL = [401, 403, 404, 410]; // reporting ends after these

  const clock = () => performance.now();
  const isHidden = () => document.hidden && !document.pictureInPictureElement;
  const quality = (video) => (video.getVideoPlaybackQuality ? video.getVideoPlaybackQuality() : {});

  /** A report is sealed once and sent until accepted. */
  function reporter(options, protocol, ended) {
    const interval = options.interval || 5000;
    const viewer = options.viewer || Math.random().toString(36).slice(2) + Date.now().toString(36);
    let sums = { exposure: 0 };
    let sequence = 0;
    let sealed = null;
    let isPosting = false;
    let token = "";
    let wait = interval;
    let sentAt = clock();
    let dueAt = sentAt + interval;

    function seal() {
      const body = { sessionId: options.sessionId, viewer, sequence, protocol: options.protocol || protocol, player: options.player, ...sums };
      // A freeze may be known late, a number corrected: the rest is in the next report.
      sums = { exposure: 0 };
      for (const name of ["freezeCount", "totalFreezesDuration", "packetsLost"]) {
        const sum = body[name] || 0;
        body[name] = Math.max(0, name === "totalFreezesDuration" ? Math.min(sum, body.exposure) : sum);
        sums[name] = sum - body[name];
      }
      if (!body.packetsReceived && !body.packetsLost) delete body.packetsLost;
      if (!body.exposure && !body.packetsReceived && !body.messageLatencies) return null;
      sequence += 1;
      return JSON.stringify(body);
    }

    // sendBeacon() sets no header.
    const address = () => options.url + "?token=" + encodeURIComponent(token);

    async function renew() {
      token = await (typeof options.token === "function" ? options.token() : options.token);
    }
    renew().catch(() => {});

    async function post() {
      sealed = sealed || seal();
      sentAt = clock();
      dueAt = sentAt + wait;
      if (!sealed) return;
      isPosting = true;
      let status = 0;
      let retryAfter = 0;
      try {
        await renew();
        const signal = AbortSignal.timeout && AbortSignal.timeout(ANSWER_WITHIN);
        const answer = await fetch(address(), { method: "POST", body: sealed, keepalive: true, credentials: "omit", signal });
        status = answer.status;
        retryAfter = answer.headers.get("Retry-After") * 1000 || 0;
      } catch (_) {} // status 0
      isPosting = false;
      if (FINAL.includes(status)) {
        ended.abort();
      } else if (!status || status === 429 || status >= 500) {
        wait = Math.max(retryAfter, Math.min(wait * 2, LONGEST_WAIT));
        dueAt = clock() + wait;
      } else {
        sealed = null;
        wait = interval;
      }
    }

    return {
      add: (name, amount) => amount && (sums[name] = (sums[name] || 0) + amount),
      tell: (name, value) => (sums[name] = value),
      message: (milliseconds) => (sums.messageLatencies = [...(sums.messageLatencies || []), milliseconds / 1000].slice(-MOST)),
      tick(now) {
        if (isPosting) return;
        if (sums.exposure > UNSENT) sealed = seal();
        if (now >= dueAt) post();
      },
      stall(seconds) {
        this.add("freezeCount", 1);
        this.add("totalFreezesDuration", seconds);
        if (wait === interval) dueAt = Math.min(dueAt, sentAt + SOONEST);
      },
      flush() {
        for (const body of [sealed, seal()]) if (body) navigator.sendBeacon(address(), body);
        sealed = null;
      },
    };
  }

  /** It stalls when it waits or its position stops while it should play. */
  function watchElement(element, report, signal) {
    let position = element.currentTime;
    let state = !element.paused && position ? "playing" : "starting";
    let since = clock();
    let movedAt = since;
    let askedAt = (!element.paused || element.autoplay) && since;
    let shown;

    function pass(now, isCounted = true) {
      if (isCounted && /playing|stalled/.test(state)) {
        report.add("exposure", (now - since) / 1000);
        if (state === "stalled") report.add("totalFreezesDuration", (now - since) / 1000);
      } else {
        movedAt = now;
      }
      since = now;
    }
    const on = (name, from, next) =>
      element.addEventListener(name, () => {
        if (!from.test(state)) return;
        pass(clock(), !isHidden());
        if (next === "stalled" && !isHidden()) report.stall(0);
        if (state === "starting" && next === "playing" && askedAt) report.tell("firstFrame", (since - askedAt) / 1000);
        if (next === "starting") askedAt = element.autoplay && since;
        state = next;
        position = element.currentTime;
        movedAt = since;
      }, { signal });

    element.addEventListener("play", () => (askedAt = askedAt || clock()), { signal });
    on("playing", /./, "playing");
    on("waiting", /playing/, "stalled");
    on("seeking", /playing|stalled/, "seeking");
    on("pause", /playing|stalled|seeking/, "paused");
    on("ended", /./, "over");
    on("error", /./, "over");
    on("emptied", /./, "starting");

    return {
      pass,
      tick(now) {
        const { totalVideoFrames, droppedVideoFrames } = quality(element);
        const frames = totalVideoFrames - droppedVideoFrames;
        if (frames > shown) report.add("framesDecoded", frames - shown);
        shown = frames;
        const moved = element.currentTime - position;
        position += moved;
        if (moved) {
          movedAt = now;
          if (state === "stalled" && moved > 0.1) state = "playing";
        } else if (state === "playing" && now - movedAt > STUCK) {
          report.stall((now - movedAt) / 1000);
          state = "stalled";
        }
      },
    };
  }

  /** It freezes while the next frame is late. */
  function watchConnection(connection, report, signal, video) {
    const askedAt = clock();
    const known = new Map();
    let hasStarted = false;
    let since = askedAt;
    let gaps = [];
    let lastAt = 0; // newest frame
    let patience = STUCK; // a longer gap is a freeze
    let counted = 0; // seconds of it
    let statsAt = 0;
    let presented = 0;
    let decoded = 0;

    function begin(at) {
      hasStarted = true;
      if (at < askedAt) return;
      since = at;
      report.tell("firstFrame", (at - askedAt) / 1000);
    }

    function pass(now, isCounted = true) {
      const isSent = connection.getReceivers().some(({ track }) => track.kind === "video" && !track.muted && track.readyState === "live");
      if (isCounted && isSent && hasStarted && !(video && video.paused)) {
        report.add("exposure", (now - since) / 1000);
      } else {
        lastAt = counted = 0;
      }
      since = now;
    }

    function freeze(seconds) {
      if (!counted) report.stall(0);
      report.add("totalFreezesDuration", seconds - counted);
      counted = seconds;
    }

    /** Replaces what was counted of a gap by its `frozen` seconds. */
    function settle(frozen, count) {
      report.add("totalFreezesDuration", frozen - counted);
      report.add("freezeCount", count - (counted ? 1 : 0));
    }

    function isFreeze(gap) {
      const judged = gaps.slice(1 - GAPS).concat(gap);
      const mean = judged.reduce((sum, one) => sum + one) / judged.length;
      return judged.length >= 5 && gap >= Math.max(3 * mean, mean + MARGIN);
    }

    function frame(now, metadata) {
      if (signal.aborted) return;
      video.requestVideoFrameCallback(frame);
      // A busy page gets many at once, none within the time already counted.
      let count = presented && Math.max(1, metadata.presentedFrames - presented);
      presented = metadata.presentedFrames;
      if (counted && count > 1) {
        lastAt += 1000 * counted;
        gaps.push(1000 * counted);
        counted = 0;
        count -= 1;
      }
      if (!hasStarted) begin(now);
      if (lastAt) {
        const gap = (now - lastAt) / count;
        const isFrozen = isFreeze(gap);
        settle(isFrozen && (now - lastAt) / 1000, isFrozen && count);
        gaps = gaps.concat(Array(Math.min(count, GAPS)).fill(gap)).slice(-GAPS);
      }
      decoded = quality(video).totalVideoFrames;
      lastAt = now;
      counted = 0;
    }
    const seesFrames = video && video.requestVideoFrameCallback;
    if (seesFrames) video.requestVideoFrameCallback(frame);

    /** The browser's sums settle each gap. */
    function readFrames(now, was) {
      const at = clock();
      const grown = (name) => now[name] - (was[name] || 0);
      const frames = grown("framesDecoded");
      if (!hasStarted && frames > 0) begin(at - 1000 * (now.totalInterFrameDelay || 0));
      if (frames > 0) {
        const mean = (1000 * grown("totalInterFrameDelay")) / frames;
        patience = Math.max(3 * mean, mean + MARGIN) || STUCK;
        // The browser may count a gap of over 5 s as a pause.
        const isPause = counted && grown("pauseCount") > 0;
        const frozen = grown("totalFreezesDuration") + (isPause ? grown("totalPausesDuration") : 0);
        if (lastAt && frozen > 0) settle(frozen, grown("freezeCount") + isPause);
        lastAt = at;
        counted = 0;
      } else if (lastAt && at - lastAt > patience) {
        freeze((at - lastAt) / 1000);
      }
    }

    function read(stats) {
      const isFirst = !known.size;
      let main = null;
      stats.forEach((now) => {
        // The values at the start of the watch do not count.
        const was = known.get(now.id) || (isFirst ? now : {});
        known.set(now.id, now);
        if (now.type === "inbound-rtp") {
          for (const name of ["packetsReceived", "packetsLost", "bytesReceived", "framesDecoded"]) report.add(name, now[name] - (was[name] || 0));
          if (now.kind === "video" && !(main && main[0].framesDecoded > now.framesDecoded)) main = [now, was];
        } else if (now.nominated && now.responsesReceived > (was.responsesReceived || 0)) {
          report.tell("roundTripTime", now.currentRoundTripTime);
        }
      });
      if (main && !seesFrames) readFrames(main[0], main[1]);
    }

    return {
      pass,
      tick(now) {
        // The callback may be late, not the frame.
        const isLate = seesFrames && lastAt && isFreeze(now - lastAt);
        if (isLate && decoded === quality(video).totalVideoFrames) freeze((now - lastAt) / 1000);
        if (now - statsAt < STATS_EVERY) return;
        statsAt = now;
        connection.getStats().then(read, () => {});
      },
    };
  }

  /** Until stop(), the connection closes or the node rejects reports. */
  function watch(target, options) {
    if (!options || !options.url || !options.sessionId) throw new TypeError("watch() needs url and sessionId");
    const ended = new AbortController();
    const { signal } = ended;
    const report = reporter(options, target.getStats && "webrtc", ended);
    const viewer = (target.getStats ? watchConnection : watchElement)(target, report, signal, options.video);
    let last = clock();
    let wasHidden = false;

    function look() {
      const now = clock();
      viewer.pass(now, !wasHidden && now - last < ASLEEP);
      wasHidden = isHidden();
      last = now;
      return now;
    }
    function flush() {
      look();
      report.flush();
    }
    const timer = setInterval(() => {
      if (target.connectionState === "closed") return stop();
      const now = look();
      if (!wasHidden) viewer.tick(now);
      report.tick(now);
    }, TICK);
    signal.onabort = () => clearInterval(timer);
    document.addEventListener("visibilitychange", look, { signal });
    scope.addEventListener("pagehide", flush, { signal });
    function stop() {
      if (!signal.aborted) flush();
      ended.abort();
    }
    return { stop, message: report.message };
  }

  scope.LiveQoS = { watch };
})(globalThis);
