// The page's state: the image that is asked about, the answer that is shown, and the one that runs.

import { Cloud } from "./cloud.js";
import { $, element, outcome, say, showHistory, showLegend, showNumbers, showOutcome, showTrace } from "./panel.js";
import { ask, checkImage, exampleUrl, getBitmap, getInfo, getDrawing, getStatus } from "./server.js";
import { snippet } from "./snippets.js";
import { bytesOf, colorOf, draw, lineOf, maskLayers } from "./stage.js";

const STATUS_MS = 2000;
const LIVE_MS = 150;
const MAX_HISTORY = 20;

let info = { models: [], examples: [], palette: [[0, 114, 178]] };
let source = null; // { example | blob | camera, name }
let answer = null; // what is shown: image, objects, texts
let running = null; // the AbortController of the question that is being answered
const past = [];
const cloud = new Cloud($("cloud"));

const newAnswer = (bitmap) => ({ bitmap, query: "", thinking: "", answerText: "", objects: new Map(), cloud: null });
const modelNow = () => info.models.find((model) => model.name === $("model").value);

// ---- what is shown

function redraw(lit = null) {
  if (!answer?.bitmap) return;
  draw($("image"), answer, info.palette, lit);
  $("image").classList.toggle("small", answer.bitmap.width < 480);
  $("drop-hint").hidden = true;
  $("image").setAttribute("aria-label", outcome(answer) || "The image that is asked about");
}

function show(next) {
  answer = next;
  redraw();
  showTrace(answer);
  showLegend(answer, info.palette, redraw, redraw);
  showNumbers(answer);
  showCloud();
}

function showCloud() {
  $("space").hidden = !answer?.cloud;
  if (answer?.cloud) cloud.show(answer, info.palette);
  else cloud.hide();
}

function setRunning(controller) {
  running = controller;
  $("ask").disabled = controller !== null;
  $("cancel").hidden = controller === null;
  $("trace").ariaBusy = String(controller !== null);
}

// ---- the image

function setSource(next, bitmap) {
  running?.abort();
  stopWebcam();
  source = next;
  show(newAnswer(bitmap));
  say("");
}

// A question that is sent while an image is being checked waits for it.
let opening = Promise.resolve();

async function useFile(blob, name) {
  if (blob) await (opening = openFile(blob, name));
}

async function openFile(blob, name) {
  say("Checking the image…");
  try {
    setSource({ blob, name: name || "image.png" }, await checkImage(blob, info));
    $("query").focus();
  } catch (error) {
    say(sentence(error), "bad");
  }
}

const sentence = (error) => error.message.charAt(0).toUpperCase() + error.message.slice(1);

async function useExample(example, isAsked) {
  try {
    const bitmap = await getBitmap(exampleUrl(example.name));
    setSource({ example: example.name, name: `${example.name}.png` }, bitmap);
    $("query").value = example.question;
    if (isAsked) await submit();
  } catch (error) {
    say(sentence(error), "bad");
  }
}

async function startWebcam() {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 1280 } });
    running?.abort();
    $("webcam").srcObject = stream;
    await $("webcam").play();
    for (const [id, isHidden] of [["webcam", false], ["image", true], ["drop-hint", true], ["webcam-shot", false], ["webcam-start", true]]) $(id).hidden = isHidden;
    $("webcam-shot").focus();
    say("");
  } catch (error) {
    const reason = { NotAllowedError: "The browser was not allowed to use the webcam. Allow it in the address bar",
      NotFoundError: "There is no webcam. Plug one in" }[error.name] ?? `The webcam cannot be used (${error.name}). Close what else uses it`;
    say(`${reason}, or open an image file.`, "bad");
  }
}

function stopWebcam() {
  for (const track of $("webcam").srcObject?.getTracks() ?? []) track.stop();
  $("webcam").srcObject = null;
  for (const [id, isHidden] of [["webcam", true], ["image", false], ["webcam-shot", true], ["webcam-start", false]]) $(id).hidden = isHidden;
}

async function takeWebcamImage() {
  const { videoWidth: width, videoHeight: height } = $("webcam");
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").drawImage($("webcam"), 0, 0);
  await useFile(await canvas.convertToBlob({ type: "image/png" }), "webcam.png");
}

// Follow the robot's camera until another image is chosen or an answer about one of its is shown.
async function followCamera() {
  const own = { camera: true, name: "image.png" };
  setSource(own, null);
  while (source === own) {
    if (!document.hidden && !answer.result && !answer.hasOwnImage) {
      try {
        const bitmap = await getBitmap(`/api/camera${$("model").value}`);
        if (source === own && !answer.hasOwnImage) answer.bitmap = bitmap;
        redraw();
      } catch (error) {
        if (source === own && !running) say(sentence(error), "bad");
      }
    }
    await new Promise((resolve) => setTimeout(resolve, LIVE_MS));
  }
}

// ---- a question and its events

async function submit() {
  await opening;
  const query = $("query").value.trim();
  if (running) return;
  if (!query) return say("The question is empty. Say what to find, such as “the red mug”.", "bad");
  if (!source) return say("There is no image yet. Open one, or click an example.", "bad");
  const controller = new AbortController();
  setRunning(controller);
  const own = newAnswer(answer.bitmap);
  Object.assign(own, { query, source, model: modelNow() });
  show(own);
  say("Sent…");
  const events = { ...EVENTS };
  // One after the other: a mask is decoded while the next event already arrives.
  let chain = Promise.resolve();
  try {
    await ask({ query, model: own.model.name, source }, controller.signal, (name, data) => {
      chain = chain.then(() => events[name]?.(own, data));
    });
    await chain;
    if (!own.result && !own.error) own.error = "The answer broke off. Ask again.";
  } catch (error) {
    own.error = error.name === "AbortError" ? "Cancelled." : sentence(error);
  }
  if (running === controller) setRunning(null);
  past.unshift(own);
  past.splice(MAX_HISTORY);
  showHistory(past, choose);
  if (answer === own) {
    showOutcome(own);
    redraw();
  }
}

function choose(chosen) {
  running?.abort();
  stopWebcam();
  source = chosen.source;
  $("query").value = chosen.query;
  show(chosen);
  showOutcome(chosen);
}

const EVENTS = {
  queued(own, { before }) {
    if (answer === own) say(before === 1 ? "One question is before yours." : `${before} questions are before yours.`);
  },
  loading(own, { model }) {
    if (answer === own) say(`Loading the model ${model}. The first answer takes a few seconds longer.`);
  },
  started(own) {
    if (answer === own) say("Looking at the image…");
  },
  async image(own, { jpeg, is_same: isSame }) {
    if (!isSame) own.remark = " The image shown is not quite the one that was answered about, which was lost on the way.";
    own.bitmap = await createImageBitmap(new Blob([bytesOf(jpeg)], { type: "image/jpeg" }));
    own.hasOwnImage = true;
    if (answer === own) redraw();
  },
  thinking(own, { text, at }) {
    if (!own.thinking) measureDelay(at);
    own.thinking += text;
    if (answer !== own) return;
    say("Thinking…");
    showTrace(own);
  },
  answer(own, { text }) {
    own.answerText += text;
    if (answer === own) showTrace(own);
  },
  object(own, { index, ...prompt }) {
    own.objects.set(index, { ...prompt, isShown: true });
    refresh(own);
  },
  async mask(own, { index, ...mask }) {
    const object = own.objects.get(index);
    object.layers = await maskLayers(mask, colorOf(info.palette, index, { mask }), own.bitmap ? lineOf(own.bitmap) : 1);
    object.mask = mask;
    refresh(own);
  },
  space(own, { index, ...space }) {
    own.objects.get(index).space = space;
    refresh(own);
  },
  cloud(own, data) {
    own.cloud = data;
    if (answer === own) showCloud();
  },
  done(own, result) {
    own.result = result;
    for (const index of own.objects.keys()) if (index >= result.objects.length) own.objects.delete(index);
    own.thinking = result.thinking || own.thinking;
    if (answer !== own) return;
    showTrace(own);
    showNumbers(own);
    refresh(own);
    showOutcome(own);
  },
  error(own, { message }) {
    own.error = message.charAt(0).toUpperCase() + message.slice(1);
  },
  cancelled(own) {
    own.error = "Cancelled.";
  },
};

function refresh(own) {
  if (answer !== own) return;
  redraw();
  showLegend(own, info.palette, redraw, redraw);
}

// From the core's first word to its being painted here, both by this machine's clock [ms].
function measureDelay(at) {
  requestAnimationFrame(() => setTimeout(() => {
    document.documentElement.dataset.firstWordMs = (Date.now() - at * 1000).toFixed(1);
  }));
}

// ---- saving and copying

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// The server draws the answer that is shown, as its commands would.
async function savePng() {
  const shown = [...answer.objects].filter(([, object]) => object.isShown);
  const objects = shown.map(([index, object]) => ({
    box_xyxy: object.box_xyxy, points: object.points, color: colorOf(info.palette, index, object),
    label: [index + 1, object.mask?.score.toFixed(2)].filter(Boolean).join(" · "),
    png: object.mask?.png ?? null, offset_xy: object.mask?.offset_xy ?? [0, 0],
    lines: object.space?.box_lines_px ?? null, grasp_lines: object.space?.grasp?.lines_px ?? null,
  }));
  const { query, thinking, source: { example, blob } } = answer;
  const record = JSON.stringify({ query, thinking, example: example ?? null, objects });
  try {
    save(await getDrawing(record, example ? "" : (blob ?? await pngOf(answer.bitmap))), "answer.png");
  } catch (error) {
    say(sentence(error), "bad");
  }
}

function pngOf(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

function saveJson() {
  const objects = answer.result.objects.map((object, index) => {
    const { mask, space } = answer.objects.get(index) ?? {};
    return { ...object, mask_png: mask?.png, mask_offset_xy: mask?.offset_xy, space };
  });
  const text = JSON.stringify({ ...answer.result, objects }, null, 1);
  save(new Blob([text], { type: "application/json" }), "answer.json");
}

async function copy(kind) {
  const text = snippet(kind, {
    query: answer.query, model: answer.model.name, isRobot: answer.model.is_robot, file: answer.source.name,
  });
  $("snippet").textContent = text;
  $("snippet").hidden = false;
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    say("The browser does not let the page copy. Select the text below.");
  }
}

// ---- the beginning

async function pollStatus() {
  try {
    const { questions, states } = await getStatus();
    const state = states[$("model").value] ?? "";
    const waiting = questions > 1 ? ` · ${questions} questions` : "";
    $("state").textContent = `${$("model").value}: ${state}${waiting}`;
    if (!info.models.length) await begin();
  } catch (error) {
    $("state").textContent = error.message;
  }
  setTimeout(pollStatus, STATUS_MS);
}

function showExamples() {
  const own = info.examples.filter((example) => example.model === $("model").value);
  const shown = own.length ? own : info.examples.filter((example) => example.model === info.examples[0].model);
  const buttons = shown.map((example) => {
    const button = element("button", { type: "button" },
      element("img", { src: exampleUrl(example.name), alt: "", loading: "lazy" }),
      element("span", { textContent: example.question }));
    if (example.is_absent) button.append(element("small", { textContent: "not in the image: must be refused" }));
    button.addEventListener("click", () => useExample(example, true));
    return button;
  });
  $("examples").replaceChildren(...buttons);
  return shown;
}

function chooseModel() {
  const shown = showExamples();
  $("live").hidden = !modelNow()?.is_robot;
  if (modelNow()?.is_robot) followCamera();
  else if (shown.length) useExample(shown[0], false);
}

async function begin() {
  info = await getInfo();
  $("query").maxLength = info.max_query_chars;
  $("model").replaceChildren(...info.models.map(({ name }) => element("option", { value: name, textContent: name })));
  chooseModel();
}

function listen() {
  const on = (id, kind, listener) => $(id).addEventListener(kind, listener);
  on("form", "submit", (event) => {
    event.preventDefault();
    submit();
  });
  on("cancel", "click", () => running?.abort());
  on("model", "change", chooseModel);
  on("open", "click", () => $("file").click());
  on("file", "change", () => {
    const [file] = $("file").files;
    useFile(file, file?.name);
    $("file").value = "";
  });
  on("webcam-start", "click", startWebcam);
  on("webcam-shot", "click", takeWebcamImage);
  on("live", "click", followCamera);
  on("save-json", "click", saveJson);
  on("save-png", "click", savePng);
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(button.dataset.copy));
  }
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])][0];
    if (file) useFile(file, file.name);
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      $("stage").classList.toggle("over", kind === "dragover");
      if (kind === "drop") useFile(event.dataTransfer.files[0], event.dataTransfer.files[0]?.name);
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
    if (event.key === "/" && !["INPUT", "SELECT"].includes(document.activeElement.tagName)) {
      event.preventDefault();
      $("query").focus();
    }
  });
}

listen();
pollStatus();
