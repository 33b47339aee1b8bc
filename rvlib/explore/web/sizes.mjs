// Shapes of models and rates of GPUs, written by `python -m rvlib.explore.calculator`.
export const SIZES = {
  llama8b: {
    parameters: 8030261248,
    layers: 32,
    width: 4096,
    keys: 1024,
    vocabulary: 128256,
    inner: 14336,
    matrices: 3,
  },
  llama3b: {
    parameters: 3212749824,
    layers: 28,
    width: 3072,
    keys: 1024,
    vocabulary: 128256,
    inner: 8192,
    matrices: 3,
  },
  llama1b: { parameters: 1235814400, layers: 16, width: 2048, keys: 512, vocabulary: 128256, inner: 8192, matrices: 3 },
  pythia3b: {
    parameters: 2775208960,
    layers: 32,
    width: 2560,
    keys: 2560,
    vocabulary: 50304,
    inner: 10240,
    matrices: 2,
  },
  pythia1b: {
    parameters: 1011781632,
    layers: 16,
    width: 2048,
    keys: 2048,
    vocabulary: 50304,
    inner: 8192,
    matrices: 2,
  },
  tulu: { parameters: 7504928768, layers: 32, width: 4096, keys: 1024, vocabulary: 128256, inner: 14336, matrices: 3 },
  grm: { parameters: 3212752896, layers: 28, width: 3072, keys: 1024, vocabulary: 128256, inner: 8192, matrices: 3 },
  gemma: { parameters: 2614344192, layers: 26, width: 2304, keys: 1024, vocabulary: 256000, inner: 9216, matrices: 3 },
  truth: { parameters: 7511000000, layers: 32, width: 4096, keys: 1024, vocabulary: 128256, inner: 14336, matrices: 3 },
};
export const MACHINES = {
  H200: {
    name: "H200",
    memory: 141000000000.0,
    bfloat16: 989000000000000.0,
    float32: 67000000000000.0,
    bandwidth: 4800000000000.0,
  },
  H100: {
    name: "H100",
    memory: 80000000000.0,
    bfloat16: 989000000000000.0,
    float32: 67000000000000.0,
    bandwidth: 3350000000000.0,
  },
  A100: {
    name: "A100",
    memory: 80000000000.0,
    bfloat16: 312000000000000.0,
    float32: 19500000000000.0,
    bandwidth: 2040000000000.0,
  },
};
export const METHODS = {
  adam8bit: { optimizer: "adam8bit", dtype: "bfloat16", rank: null },
  lora: { optimizer: "adam", dtype: "float32", rank: 64 },
  adam: { optimizer: "adam", dtype: "float32", rank: null },
};
export const SHARE = 0.35;
export const LOGITS = 1024;
export const USUAL = 200;
export const BYTES = { float32: 4, bfloat16: 2 };
export const MOMENTS = { adam: 8, adam8bit: 2.03125 };
