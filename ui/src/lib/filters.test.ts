import { describe, expect, test } from "vitest";
import { type Condition, type Filter, filterParams, filterText, parseFilter, withCondition } from "./filters";

const failed: Condition = { column: "Status", operator: "Equals", values: ["Failed"] };
const slow: Condition = { column: "Response Time", operator: "AtLeast", values: ["250"] };

describe("a filter", () => {
  test("of the URL comes back as it went", () => {
    const filter: Filter = { match: "Any", conditions: [failed, slow] };
    expect(parseFilter("runs", filterText(filter))).toEqual(filter);
    expect(filterText({ match: "Any", conditions: [] })).toBeUndefined();
  });

  test("keeps of a hand-written URL only what the table knows", () => {
    const wrong = [
      { column: "Log Level", operator: "Equals", values: ["Info"] },
      { column: "Status", operator: "LessThan", values: ["Failed"] },
      { column: "Status", operator: "Equals", values: [] },
      { column: "Status", operator: "Equals", values: [7] },
      "Status",
      null,
    ];
    const text = JSON.stringify({ match: "Some", conditions: [...wrong, failed] });
    expect(parseFilter("runs", text)).toEqual({ match: "All", conditions: [failed] });
    for (const text of ["{", "null", "[]", "7"]) expect(parseFilter("runs", text).conditions).toEqual([]);
  });

  test("gathers values of one column", () => {
    const one = withCondition({ match: "All", conditions: [failed] }, { ...failed, values: ["Success"] });
    expect(one.conditions).toEqual([{ ...failed, values: ["Failed", "Success"] }]);
    const two = withCondition(one, { ...failed, operator: "NotEquals" });
    expect(two.conditions).toHaveLength(2);
  });

  test("and a search hold together", () => {
    const alone = JSON.parse(filterParams("runs", { match: "All", conditions: [] }, "x")["filter"] ?? "");
    expect(alone.match).toBe("Any");
    expect(alone.conditions.map((one: Condition) => one.column)).toEqual(["Run ID", "Function", "Source"]);
    const both = JSON.parse(
      filterParams("runs", { match: "All", conditions: [failed] }, "x")["filter"] ?? "",
    );
    expect(both).toEqual({
      match: "All",
      conditions: [failed, { column: "Run ID", operator: "Contains", values: ["x"] }],
    });
    const logs = JSON.parse(filterParams("logs", { match: "All", conditions: [] }, "x")["filter"] ?? "");
    expect(logs.conditions).toEqual([{ column: "Log Message", operator: "Contains", values: ["x"] }]);
    const any: Filter = { match: "Any", conditions: [failed, slow] };
    expect(filterParams("runs", any, "x")).toEqual({ filter: JSON.stringify(any) });
  });
});
