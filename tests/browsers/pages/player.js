// One player on one class, set up from the page's address: `player`, `src`, `v` (CMCD version), `sid`, `cid`, `events` (where event
// reports go; none without it), `mode` (`query` or `header`), `name` (of the record).
"use strict";

const video = document.getElementById("video");
const version = Number(settings.v ?? 1);
const EVENTS = ["ps", "t", "e", "rr", "bc", "b"];
const INTERVAL_SECONDS = 10;
/** Behind the live edge, as hls.js keeps by itself. ffmpeg's manifest suggests one segment, with which a player starves at each. */
const DELAY_SECONDS = 6;
const BACK_SECONDS = 3;
/** dash.js sends nothing to a target that names no keys. */
const KEYS = "ab,bg,bl,br,bs,bsa,bsd,bsda,cid,d,dfa,dl,e,ec,lab,lb,ltc,msd,mtp,nr,ot,pb,pr,pt,rc,rtp,sf,sid,sn,st,sta,su,tab,tb,tbl,tpb,ts,ttfb,ttlb,url,v".split(",");

const load = (src) => new Promise((done, failed) => {
  const script = document.createElement("script");
  Object.assign(script, { src, onload: done, onerror: () => failed(new Error(`loading ${src}`)) });
  document.head.append(script);
});

const players = {
  async hls() {
    await load("/npm/hls.js/dist/hls.js");
    const eventTargets = settings.events ? [{ url: settings.events, events: EVENTS, interval: INTERVAL_SECONDS }] : undefined;
    const cmcd = { sessionId: settings.sid, contentId: settings.cid, version, eventTargets, useHeaders: settings.mode === "header" };
    const player = new Hls({ cmcd });
    player.on(Hls.Events.ERROR, (_, { details, fatal }) => note("player-error", { text: details, fatal }));
    player.loadSource(settings.src);
    player.attachMedia(video);
    return { version: Hls.version, stop: () => player.destroy(), edge: () => player.liveSyncPosition };
  },
  async dash() {
    await load("/npm/dashjs/dist/modern/umd/dash.all.min.js");
    const player = dashjs.MediaPlayer().create();
    const eventTargets = settings.events ? [{ enabled: true, url: settings.events, events: EVENTS, interval: INTERVAL_SECONDS, enabledKeys: KEYS }] : undefined;
    const cmcd = { enabled: true, sid: settings.sid, cid: settings.cid, version, mode: settings.mode ?? "query" };
    // Its clock would be set by a server elsewhere.
    const utcSynchronization = { enabled: false };
    player.updateSettings({ streaming: { cmcd: eventTargets ? { ...cmcd, eventTargets } : cmcd, utcSynchronization, delay: { liveDelay: DELAY_SECONDS } } });
    player.on(dashjs.MediaPlayer.events.ERROR, ({ error }) => note("player-error", { text: error?.message }));
    player.initialize(video, settings.src, true);
    return { version: player.getVersion(), stop: () => player.destroy(), edge: () => video.currentTime + BACK_SECONDS };
  },
  async shaka() {
    await load("/npm/shaka-player/dist/shaka-player.compiled.js");
    const player = new shaka.Player();
    const eventTargets = settings.events ? [
      { enabled: true, mode: "event", url: settings.events, events: EVENTS, interval: INTERVAL_SECONDS, version, includeKeys: [], useHeaders: false },
    ] : undefined;
    const cmcd = { enabled: true, sessionId: settings.sid, contentId: settings.cid, version, useHeaders: settings.mode === "header" };
    player.configure({ cmcd: eventTargets ? { ...cmcd, eventTargets } : cmcd });
    player.configure({ manifest: { defaultPresentationDelay: DELAY_SECONDS, dash: { ignoreSuggestedPresentationDelay: true } } });
    player.addEventListener("error", ({ detail }) => note("player-error", { text: `${detail.category}/${detail.code}` }));
    player.addEventListener("buffering", ({ buffering }) => note(buffering ? "player-buffering" : "player-ready"));
    await player.attach(video);
    await player.load(settings.src);
    return { version: shaka.Player.version, stop: () => player.destroy(), edge: () => player.seekRange().end - DELAY_SECONDS };
  },
  async mpegts() {
    await load("/npm/mpegts.js/dist/mpegts.js");
    // What comes is shown at once, as live pages set it up.
    const player = mpegts.createPlayer({ type: "flv", isLive: true, url: settings.src }, { enableStashBuffer: false });
    player.on(mpegts.Events.ERROR, (kind, detail) => note("player-error", { text: `${kind}/${detail}` }));
    player.attachMediaElement(video);
    player.load();
    return { version: mpegts.version, stop: () => player.destroy() };
  },
};

async function start() {
  // Autoplay is allowed by the browser's arguments; `autoplay` is how a page usually asks for it.
  video.autoplay = true;
  const actions = {
    pause: () => video.pause(),
    play: () => video.play(),
    back: () => (video.currentTime -= BACK_SECONDS),
    edge: () => (video.currentTime = player.edge()),
    hide: () => window.open("cover.html", "_blank"),
    stop: () => player.stop(),
  };
  let player = null;
  watch(video, actions);
  player = await players[settings.player]();
  record.info = { player: settings.player, version: player.version, browser: navigator.userAgent };
}

start().catch((error) => note("page-error", { text: String(error.stack ?? error) }));
