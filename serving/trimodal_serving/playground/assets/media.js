// Files and recordings in forms that the server reads: const { kind, url } = await read(file).

import { t } from "./words.js";

const READ_BY_SERVER = {
  image: ["image/png", "image/jpeg", "image/webp"],
  audio: ["audio/wav", "audio/x-wav", "audio/wave", "audio/flac", "audio/x-flac", "audio/ogg", "audio/mpeg"],
};
const SAMPLE_RATE = 16000;
const THUMBNAIL = 96;
const WAV_HEAD = 44;
const WAVE = { width: 320, height: 64 };

/** What a file is, as a data URL; what the server does not read, the browser turns into PNG or WAV. */
export async function read(file) {
  const kind = file.type.split("/")[0];
  if (!(kind in READ_BY_SERVER)) throw new Error(t("bad_kind", { name: file.name }));
  if (READ_BY_SERVER[kind].includes(file.type)) return { kind, url: await dataUrl(file) };
  try {
    return { kind, url: kind === "image" ? await png(file) : await wav(file) };
  } catch {
    throw new Error(t(kind === "image" ? "bad_picture" : "bad_sound", { name: file.name }));
  }
}

export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

async function png(file) {
  const bitmap = await createImageBitmap(file);
  return drawn(bitmap, bitmap.width, bitmap.height).toDataURL("image/png");
}

export function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

/** What the loudness of a WAV file of 16 bits looks like, in the colour of the text, and its seconds. */
export function waveform(file) {
  const samples = new Int16Array(file.buffer, WAV_HEAD);
  const canvas = Object.assign(document.createElement("canvas"), WAVE);
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(document.body).color;
  for (let x = 0; x < WAVE.width; x++) {
    const [from, to] = [x, x + 1].map((n) => Math.floor((n * samples.length) / WAVE.width));
    const loudest = samples.subarray(from, to + 1).reduce((most, s) => Math.max(most, Math.abs(s)), 0);
    const height = Math.max(1, (loudest / 0x8000) * WAVE.height);
    context.fillRect(x, (WAVE.height - height) / 2, 1, height);
  }
  return { url: canvas.toDataURL(), seconds: samples.length / new DataView(file.buffer).getUint32(24, true) };
}

function drawn(source, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").drawImage(source, 0, 0, width, height);
  return canvas;
}

/** A small JPEG of a picture, a few KiB. */
export async function thumbnail(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const scale = Math.min(1, THUMBNAIL / Math.max(image.naturalWidth, image.naturalHeight));
  const [width, height] = [image.naturalWidth, image.naturalHeight].map((n) => Math.max(1, Math.round(n * scale)));
  return drawn(image, width, height).toDataURL("image/jpeg", 0.8);
}

async function wav(blob) {
  const data = await blob.arrayBuffer();
  const context = new OfflineAudioContext(1, 1, SAMPLE_RATE);
  const sound = await context.decodeAudioData(data);  // resampled on the way
  const mono = new Float32Array(sound.length);
  for (let c = 0; c < sound.numberOfChannels; c++) {
    const channel = sound.getChannelData(c);
    for (let i = 0; i < mono.length; i++) mono[i] += channel[i] / sound.numberOfChannels;
  }
  return dataUrl(new Blob([wavFile(mono)], { type: "audio/wav" }));
}

/** 16-bit PCM with the header of RIFF. */
function wavFile(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const ascii = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  ascii(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  ascii(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, SAMPLE_RATE, true);
  view.setUint32(28, 2 * SAMPLE_RATE, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  ascii(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((s, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, s)) * 0x7fff, true));
  return view.buffer;
}

/** Starts the microphone; the function it gives stops it and gives the recording as a file. */
export async function record() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const recorder = new MediaRecorder(stream);
  const chunks = [];
  recorder.ondataavailable = (event) => chunks.push(event.data);
  recorder.start();
  return async () => {
    const stopped = new Promise((resolve) => { recorder.onstop = resolve; });
    recorder.stop();
    await stopped;
    for (const track of stream.getTracks()) track.stop();
    return new File(chunks, t("audio"), { type: recorder.mimeType || "audio/webm" });
  };
}
