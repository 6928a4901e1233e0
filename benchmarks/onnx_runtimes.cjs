// Runs an exported model in ONNX Runtime's packages for Node and for browsers; onnx_runtimes.py starts it.
// node onnx_runtimes.cjs PACKAGE MODEL.onnx < [{"input": {"dims": [...], "data": "base64 of float32"}}, ...]
const name = process.argv[2];
const ort = require(name);

async function main() {
  const runs = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const session = await ort.InferenceSession.create(process.argv[3]);
  const results = [];
  for (const run of runs) {
    const feeds = {};
    for (const [input, { dims, data }] of Object.entries(run)) {
      const bytes = Uint8Array.from(Buffer.from(data, "base64"));
      feeds[input] = new ort.Tensor("float32", new Float32Array(bytes.buffer), dims);
    }
    const outputs = await session.run(feeds);
    results.push(["probabilities", "deltas"].map((output) => ({
      dims: outputs[output].dims,
      data: Buffer.from(Float32Array.from(outputs[output].data).buffer).toString("base64"),
    })));
  }
  const { version } = JSON.parse(require("fs").readFileSync(require.resolve(name).replace(/(.*node_modules\/[^/]*).*/, "$1/package.json"), "utf8"));
  process.stdout.write(JSON.stringify({ version, results }));
}
main().catch((error) => { console.error(String(error)); process.exit(1); });
