// node llama.mjs MODEL '[{"ids": [...], "embed": true}, ...]': prints each one's vector, or the next token's probabilities
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const found = createRequire(`${process.env.NODE_MODULES ?? "."}/x.js`).resolve("node-llama-cpp");
const {getLlama} = await import(pathToFileURL(found).href);
const [,, file, jobs] = process.argv;
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: file, useMmap: false});
const out = [];
for (const {ids, embed} of JSON.parse(jobs)) {
  if (embed) {
    const context = await model.createEmbeddingContext({contextSize: 128, threads: 1});
    out.push(Array.from((await context.getEmbeddingFor(ids)).vector));
    await context.dispose();
  } else {
    const context = await model.createContext({contextSize: 128, threads: 1});
    const last = [ids.at(-1), {generateNext: {probabilities: true, options: {temperature: 1}}}];
    const steps = await context.getSequence().controlledEvaluate([...ids.slice(0, -1), last]);
    out.push(Array.from(steps.at(-1).next.probabilities));
    await context.dispose();
  }
}
console.log("RESULT" + JSON.stringify(out));
process.exit(0);
