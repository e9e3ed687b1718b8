// The texts beside the image: status, reasoning, objects, times, history.

import { colorOf } from "./stage.js";

export const $ = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function say(text, kind = "") {
  $("status").textContent = text;
  $("status").className = kind;
}

const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
const cm = (meters) => (meters * 100).toFixed(1);

// What an answer comes to, in a sentence.
export function outcome(answer) {
  if (answer.error) return answer.error;
  if (!answer.result) return "";
  const found = answer.objects.size;
  if (!found) return `Nothing in the image fits “${answer.query}”.`;
  return `${count(found, "object")} found for “${answer.query}”.${answer.remark ?? ""}`;
}

export function showOutcome(answer) {
  const isNothing = answer.result && !answer.error && !answer.objects.size;
  say(outcome(answer), answer.error ? "bad" : isNothing ? "nothing" : "");
}

// Say how one object is placed in space, in the camera's frame or that of the node's poses.
function placeText(space) {
  if (!space) return "";
  if (space.reason) return `no size: ${space.reason}`;
  const [x, y, z] = space.center_m;
  const frame = space.frame ? ` in ${space.frame}` : " (right, down, forward)";
  let text = `${space.size_m.map(cm).join(" × ")} cm at ${[x, y, z].map((v) => v.toFixed(3)).join(", ")} m${frame}`;
  if (space.grasp) text += `; grasp ${cm(space.grasp.width_m)} cm wide, score ${space.grasp.score.toFixed(2)}`;
  else text += "; no grasp fits the gripper";
  return text;
}

// Write the legend; `light(index or null)` lights an object and `redraw` follows a toggle.
export function showLegend(answer, palette, light, redraw) {
  $("found").hidden = !answer?.objects.size;
  const rows = [...(answer?.objects ?? [])].map(([index, object]) => {
    const box = element("input", { type: "checkbox", checked: object.isShown });
    box.addEventListener("change", () => {
      object.isShown = box.checked;
      redraw();
    });
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = `rgb(${colorOf(palette, index, object)})`;
    const { mask } = object;
    const facts = mask ? `score ${mask.score.toFixed(2)}, ${mask.area_px.toLocaleString("en")} px` : "mask to come";
    const row = element("li", {}, element("label", {}, box, swatch, `Object ${index + 1}: ${facts}`));
    const place = placeText(object.space);
    if (place) row.append(element("p", { className: "place", textContent: place }));
    for (const [on, off] of [["mouseenter", "mouseleave"], ["focusin", "focusout"]]) {
      row.addEventListener(on, () => light(index));
      row.addEventListener(off, () => light(null));
    }
    return row;
  });
  $("legend").replaceChildren(...rows);
}

const STAGES = [
  ["first token", "first_token_ms"],
  ["completion", "reasoner_ms"],
  ["image encoder", "encoder_ms"],
  ["mask decoder", "decoder_ms"],
  ["total", "total_ms"],
];

// Milliseconds of each stage; they overlap, so they do not add up to the total.
export function showNumbers(answer) {
  const result = answer?.result;
  $("numbers").hidden = !result;
  $("snippet").hidden = true;
  if (!result) return;
  const { timings, model } = result;
  const cells = STAGES.flatMap(([name, key]) => {
    const bar = element("span", { className: "bar", ariaHidden: "true" }, element("i"));
    bar.firstChild.style.setProperty("--share", `${Math.min(100, (100 * timings[key]) / Math.max(1, timings.total_ms))}%`);
    return [element("span", { textContent: name }), bar,
      element("span", { className: "ms", textContent: `${timings[key].toFixed(0)} ms` })];
  });
  $("times").replaceChildren(...cells);
  const by = result.answered_by && result.answered_by !== model.name ? `, answered by ${result.answered_by}` : "";
  $("identity").textContent = `${model.name} ${model.weights_hash}${by} · image encoder: ${model.encoder_backend} · ` +
    `${count(timings.tokens, "token")}`;
}

export function showTrace(answer) {
  const trace = $("trace");
  trace.replaceChildren(answer?.thinking ?? "");
  if (answer?.answerText) trace.append(element("span", { className: "answer", textContent: answer.answerText }));
  trace.scrollTop = trace.scrollHeight;
}

export function showHistory(answers, choose) {
  $("past").hidden = !answers.length;
  const rows = answers.map((answer) => {
    const thumbnail = element("canvas", { width: 96, height: 72, ariaHidden: "true" });
    if (answer.bitmap) thumbnail.getContext("2d").drawImage(answer.bitmap, 0, 0, 96, 72);
    const came = answer.error ? "failed" : count(answer.objects.size, "object");
    const button = element("button", { type: "button" }, thumbnail, answer.query, element("small", { textContent: came }));
    button.addEventListener("click", () => choose(answer));
    return element("li", {}, button);
  });
  $("history").replaceChildren(...rows);
}
