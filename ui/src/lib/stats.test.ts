import { describe, expect, test } from "vitest";
import { fisher, mannWhitney } from "./stats";

describe("Fisher's exact test", () => {
  test("gives the values of the textbooks", () => {
    // The lady tasting tea, 3 of 4, and 8 of 9 against 2 of 7 (R: fisher.test).
    expect(fisher(3, 4, 1, 4)).toBeCloseTo(0.4857, 4);
    expect(fisher(8, 9, 2, 7)).toBeCloseTo(0.035, 4);
    expect(fisher(0, 5, 0, 5)).toBeCloseTo(1, 6);
    expect(fisher(0, 0, 1, 5)).toBeNull();
  });

  test("is quick and steady with many runs", () => {
    expect(fisher(1_000, 100_000, 1_000, 100_000)).toBeGreaterThan(0.9);
    expect(fisher(1_000, 100_000, 1_300, 100_000)).toBeLessThan(1e-8);
  });
});

describe("the Mann-Whitney U test", () => {
  const range = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);

  test("gives the value of R's wilcox.test", () => {
    const result = mannWhitney(range(1, 10), range(6, 10));
    // wilcox.test(1:10, 6:15, exact=FALSE): W = 12.5, p = 0.005079
    expect(result?.p).toBeCloseTo(0.005079, 4);
    expect(result?.slower).toBeCloseTo(0.875, 6);
  });

  test("finds nothing where there is nothing", () => {
    expect(mannWhitney(range(1, 50), range(1, 50))?.p).toBeGreaterThan(0.9);
    expect(mannWhitney(Array(20).fill(5), Array(20).fill(5))?.p).toBe(1);
  });

  test("does not judge a handful of runs", () => {
    expect(mannWhitney(range(1, 7), range(100, 50))).toBeNull();
  });
});
