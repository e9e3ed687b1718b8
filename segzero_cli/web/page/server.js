// Requests to the server that gave this page. Every failure is an Error whose message is a sentence.

const visitor = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
  byte.toString(16).padStart(2, "0")).join("");
const GONE = "The server does not answer. Start `segzero web` again; this page goes on by itself.";

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(GONE);
  }
  if (response.ok) return response;
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).error;
  } catch { /* plain text */ }
  throw new Error(message || `The server refused with ${response.status}.`);
}

export const getInfo = async () => (await request("/api/info")).json();
export const getStatus = async () => (await request("/api/status")).json();
export const exampleUrl = (name) => `/api/examples/${encodeURIComponent(name)}`;

export async function getBitmap(path) {
  return createImageBitmap(await (await request(path)).blob());
}

// Have the server decode an image and return it as a bitmap, upright. The browser's own decoding is
// used where it agrees on the size, which it does not for a format or rotation it does not know.
export async function checkImage(blob, info) {
  if (blob.size > info.max_upload_bytes) {
    throw new Error(`The file has ${(blob.size / 1e6).toFixed(0)} MB, more than the limit of ` +
      `${info.max_upload_bytes / 1e6} MB. Choose a smaller one.`);
  }
  const { size_wh: [width, height] } = await (await request("/api/image", { method: "POST", body: blob })).json();
  try {
    const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
    if (bitmap.width === width && bitmap.height === height) return bitmap;
  } catch { /* a format that only the server reads */ }
  const png = await request("/api/image?as=png", { method: "POST", body: blob });
  return createImageBitmap(await png.blob());
}

// Have the server draw an answer into its image.
export async function getDrawing(record, image) {
  return (await request("/api/drawing", { method: "POST", body: new Blob([record, "\n", image]) })).blob();
}

// Ask, and call onEvent(name, data) for each event until the answer has ended.
export async function ask({ query, model, source }, signal, onEvent) {
  const parameters = new URLSearchParams({ query, model });
  if (source.example) parameters.set("example", source.example);
  if (source.camera) parameters.set("camera", "1");
  const response = await request(`/api/ask?${parameters}`, {
    method: "POST", body: source.blob ?? "", headers: { "X-Segzero-Visitor": visitor }, signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The connection broke during the answer. Ask again.");
    }
    if (chunk.done) return;
    const blocks = (rest + chunk.value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const [name, data] = block.split("\n", 2);
      onEvent(name.slice("event: ".length), JSON.parse(data.slice("data: ".length)));
    }
  }
}
