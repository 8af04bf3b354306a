// No player but the browser itself: a file that comes as fast as the link lets it.
"use strict";

const video = document.getElementById("video");
watch(video, { stop: () => video.pause() });
video.src = settings.src;
record.info = { player: "plain", version: "", browser: navigator.userAgent };
