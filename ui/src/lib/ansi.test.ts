import { describe, expect, test } from "vitest";
import { pieces, plainText } from "./ansi";

const ESC = "\u001b";

describe("a message", () => {
  test("has its colours as pieces", () => {
    expect(pieces(`a ${ESC}[31mred${ESC}[0m ${ESC}[1mbold${ESC}[0m`, "")).toEqual([
      { text: "a ", style: "", found: false },
      { text: "red", style: "ansi-red", found: false },
      { text: " ", style: "", found: false },
      { text: "bold", style: "bold", found: false },
    ]);
  });

  test("loses what moves the cursor or rings", () => {
    const noisy = `${ESC}[2J${ESC}]0;title\u0007a${ESC}[1Ab\u0007c`;
    expect(
      pieces(noisy, "")
        .map((piece) => piece.text)
        .join(""),
    ).toBe("abc");
    expect(plainText(`${noisy}${ESC}[31md${ESC}[0m`)).toBe("abcd");
  });

  test("marks what was searched for, also across colours and in any case", () => {
    const found = pieces(`The R${ESC}[32mATE${ESC}[0m is a rate (.*)`, "rate");
    expect(found.filter((piece) => piece.found).map((piece) => [piece.text, piece.style])).toEqual([
      ["R", ""],
      ["ATE", "ansi-green"],
      ["rate", ""],
    ]);
    expect(found.map((piece) => piece.text).join("")).toBe("The RATE is a rate (.*)");
    expect(pieces("a.*b", ".*").filter((piece) => piece.found)).toHaveLength(1);
  });

  test("keeps markup as text", () => {
    expect(pieces("<b>&amp;</b>", "")).toEqual([{ text: "<b>&amp;</b>", style: "", found: false }]);
  });
});
