// The question as code to paste. Queries and file names are quoted: they may hold anything.

export const shellQuote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// A JSON string is a Python string too, but for lone surrogates, which are escaped in both.
const pythonQuote = (text) => JSON.stringify(text);

// What begins with a dash would be an option.
const asPath = (name) => (name.startsWith("-") ? `./${name}` : name);
const asQuery = (query) => (query.startsWith("-") ? ` ${query}` : query);

export function snippet(kind, { query, model, isRobot, file }) {
  const node = isRobot ? model : "/segzero";
  if (kind === "ros2") {
    const goal = shellQuote(JSON.stringify({ query }));
    return `ros2 action send_goal --feedback ${shellQuote(`${node}/segment`)} segzero_ros/action/Segment ${goal}`;
  }
  if (kind === "shell" && isRobot) {
    return `ros2 run segzero_ros ask --node ${shellQuote(node)} ${shellQuote(asQuery(query))}`;
  }
  if (kind === "shell") {
    return `segzero segment ${shellQuote(asPath(file))} ${shellQuote(asQuery(query))} --model ${shellQuote(model)} --out overlay.png`;
  }
  return [
    "from segzero_core import SegZero, load_image",
    "",
    `model = SegZero.load(${pythonQuote(isRobot ? "tabletop" : model)})`,
    `result = model.segment(load_image(${pythonQuote(file)}), ${pythonQuote(query)})`,
    "print(result.reasoning.thinking)",
    "print(result.segmentation.masks.shape, result.segmentation.scores)",
  ].join("\n");
}
