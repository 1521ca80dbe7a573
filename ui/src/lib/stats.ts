/** Whether two versions differ by more than chance. Pure. */

/** Logarithms of factorials, Stirling's series above 170. */
function logFactorial(n: number): number {
  if (n < 2) return 0;
  if (n > 170)
    return n * Math.log(n) - n + 0.5 * Math.log(2 * Math.PI * n) + 1 / (12 * n) - 1 / (360 * n ** 3);
  let sum = 0;
  for (let i = 2; i <= n; i++) sum += Math.log(i);
  return sum;
}

/**
 * Fisher's exact test, two-sided: how likely tables at least as unlikely as this one are, if the share is the same in
 * both groups. Exact for every size.
 */
export function fisher(failedA: number, endedA: number, failedB: number, endedB: number): number | null {
  const failed = failedA + failedB;
  const all = endedA + endedB;
  if (endedA === 0 || endedB === 0) return null;
  const constant =
    logFactorial(failed) +
    logFactorial(all - failed) +
    logFactorial(endedA) +
    logFactorial(endedB) -
    logFactorial(all);
  const log = (a: number) =>
    constant -
    logFactorial(a) -
    logFactorial(failed - a) -
    logFactorial(endedA - a) -
    logFactorial(endedB - failed + a);
  const seen = log(failedA);
  let p = 0;
  for (let a = Math.max(0, failed - endedB); a <= Math.min(failed, endedA); a++) {
    const one = log(a);
    if (one <= seen + 1e-7) p += Math.exp(one);
  }
  return Math.min(1, p);
}

/** The normal distribution's upper tail (Abramowitz and Stegun 7.1.26, error below 1.5e-7). */
function upperTail(z: number): number {
  const x = Math.abs(z) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * x);
  const poly =
    t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const tail = (poly * Math.exp(-x * x)) / 2;
  return z >= 0 ? tail : 1 - tail;
}

export interface RankTest {
  /** Two-sided. */
  p: number;
  /** How often a value of B is above one of A, ties counting half: 0.5 where neither is slower. */
  slower: number;
}

/**
 * The Mann-Whitney U test, two-sided, with correction for ties: whether values of B tend to lie above or below those of
 * A. It asks nothing of the distribution, which durations need. None below 8 values each, where the normal
 * approximation does not hold.
 */
export function mannWhitney(a: number[], b: number[]): RankTest | null {
  if (a.length < 8 || b.length < 8) return null;
  const all = [...a.map((value) => ({ value, of: 0 })), ...b.map((value) => ({ value, of: 1 }))];
  all.sort((x, y) => x.value - y.value);
  let ranks = 0;
  let ties = 0;
  for (let i = 0; i < all.length; ) {
    let end = i;
    while (end < all.length && all[end]?.value === all[i]?.value) end++;
    const rank = (i + 1 + end) / 2;
    for (let k = i; k < end; k++) if (all[k]?.of === 1) ranks += rank;
    ties += (end - i) ** 3 - (end - i);
    i = end;
  }
  const [m, n] = [a.length, b.length];
  const u = ranks - (n * (n + 1)) / 2;
  const sum = m + n;
  const variance = ((m * n) / 12) * (sum + 1 - ties / (sum * (sum - 1)));
  const slower = u / (m * n);
  if (variance === 0) return { p: 1, slower };
  const z = Math.max(0, Math.abs(u - (m * n) / 2) - 0.5) / Math.sqrt(variance);
  return { p: Math.min(1, 2 * upperTail(z)), slower };
}

/** Below this a difference is taken for more than chance. */
export const SIGNIFICANT = 0.01;

export function pText(p: number): string {
  return p < 0.0001 ? "p < 0.0001" : `p = ${p.toFixed(p < 0.01 ? 4 : 2)}`;
}
