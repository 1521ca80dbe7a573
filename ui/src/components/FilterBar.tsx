import { useState } from "react";
import { Button, Dialog, DialogTrigger, Popover } from "react-aria-components";
import {
  type Condition,
  conditionText,
  type Filter,
  isSearchable,
  NO_FILTER,
  OPERATOR_NAMES,
  searched,
  type Table,
  withoutCondition,
} from "../lib/filters";
import { useKeys } from "../lib/keys";
import { Choice } from "./Choice";
import { ConditionForm } from "./ConditionForm";
import { Icon } from "./Icon";
import { SearchBox } from "./SearchBox";

interface Props {
  table: Table;
  filter: Filter;
  search: string;
  onFilter: (filter: Filter) => void;
  onSearch: (search: string) => void;
}

/** The filter's conditions, how they are joined, and the search. */
export function FilterBar({ table, filter, search, onFilter, onSearch }: Props) {
  const [editing, setEditing] = useState<number | "new" | null>(null);
  useKeys({ f: () => setEditing("new") });
  const { conditions, match } = filter;
  const save = (condition: Condition) => {
    const next =
      typeof editing === "number"
        ? conditions.map((one, i) => (i === editing ? condition : one))
        : [...conditions, condition];
    setEditing(null);
    onFilter({ ...filter, conditions: next });
  };
  const editor = (key: number | "new", condition?: Condition) => (
    <Popover className="popover" placement="bottom start">
      <Dialog className="condition-dialog" aria-label={condition ? "Change a filter" : "Add a filter"}>
        <ConditionForm key={String(key)} table={table} onSave={save} {...(condition && { condition })} />
      </Dialog>
    </Popover>
  );
  const opened = (key: number | "new") => ({
    isOpen: editing === key,
    onOpenChange: (open: boolean) => setEditing(open ? key : null),
  });
  return (
    <div className="filters" role="search" aria-label="Filters">
      <DialogTrigger {...opened("new")}>
        <Button className="button">
          <Icon name="filter" />
          Filter
          {conditions.length > 0 && (
            <span className="count-badge num">
              {conditions.length}
              <span className="visually-hidden"> in use</span>
            </span>
          )}
        </Button>
        {editor("new")}
      </DialogTrigger>
      <SearchBox
        label={`Search ${searched(table, filter)}`}
        value={search}
        onChange={onSearch}
        disabled={!isSearchable(filter)}
        {...(!isSearchable(filter) && { hint: "Filters of which any holds can not be joined with a search" })}
      />
      {conditions.length > 0 && (
        <ul className="chips" aria-label="Conditions">
          {conditions.map((condition, i) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: a condition has no name of its own
            <li className="chip" key={i}>
              <DialogTrigger {...opened(i)}>
                <Button className="chip-text" aria-label={`Change: ${conditionText(condition)}`}>
                  <span className="soft">{condition.column}</span> {OPERATOR_NAMES[condition.operator]}{" "}
                  <strong>{condition.values.join(", ")}</strong>
                </Button>
                {editor(i, condition)}
              </DialogTrigger>
              <Button
                className="chip-remove"
                aria-label={`Remove: ${conditionText(condition)}`}
                onPress={() => onFilter(withoutCondition(filter, i))}
              >
                <Icon name="cross" />
              </Button>
            </li>
          ))}
        </ul>
      )}
      {conditions.length > 1 && (
        <Choice
          label="How filters are joined"
          value={match}
          options={[
            ["All", "All hold"],
            ["Any", "Any holds"],
          ]}
          onChange={(next) => onFilter({ ...filter, match: next === "Any" ? "Any" : "All" })}
        />
      )}
      {conditions.length > 0 && (
        <Button className="button button-quiet" onPress={() => onFilter(NO_FILTER)}>
          Clear all
        </Button>
      )}
    </div>
  );
}
