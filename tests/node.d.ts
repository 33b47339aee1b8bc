// Of Node's modules what tests/*.mjs use, so that checking them needs no package of types.
declare module "node:assert/strict" {
  type Condition = (value: unknown, message?: string) => asserts value;
  const assert: {
    ok: Condition;
    equal: (actual: unknown, expected: unknown) => void;
    throws: (work: () => unknown, message: RegExp) => void;
  };
  export default assert;
}
declare module "node:fs" {
  export function readFileSync(from: string | URL | number, encoding: "utf-8"): string;
}
declare module "node:process" {
  const process: { argv: string[]; env: Record<string, string> };
  export default process;
}
declare module "node:test" {
  export default function test(name: string, work: () => void): void;
}
