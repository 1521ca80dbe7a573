import { type FormEvent, useState } from "react";
import { Button, Checkbox, CheckboxGroup, Label } from "react-aria-components";
import { COLUMNS, type Condition, columnOf, OPERATOR_NAMES, type Operator, type Table } from "../lib/filters";
import { Choice } from "./Choice";
import { Icon } from "./Icon";

interface Props {
  table: Table;
  /** What is changed; none for a new one. */
  condition?: Condition;
  onSave: (condition: Condition) => void;
}

/** A column, how it is compared, and values. */
export function ConditionForm({ table, condition, onSave }: Props) {
  const [column, setColumn] = useState(condition?.column ?? COLUMNS[table][0]?.name ?? "");
  const [operator, setOperator] = useState<Operator>(condition?.operator ?? "Equals");
  const [values, setValues] = useState(condition?.values ?? []);
  const [typed, setTyped] = useState("");
  const kind = columnOf(table, column);
  const all = typed.trim() ? [...new Set([...values, typed.trim()])] : values;
  const wrong =
    column === "Response Time" && all.some((value) => !/^\d+(\.\d+)?$/.test(value))
      ? "Give milliseconds, such as 250 or 12.5."
      : "";
  const change = (name: string) => {
    const next = columnOf(table, name);
    setColumn(name);
    setOperator(next?.operators.includes(operator) ? operator : "Equals");
    setValues([]);
    setTyped("");
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (all.length && !wrong) onSave({ column, operator, values: all });
  };
  return (
    <form className="condition" onSubmit={submit}>
      <div className="condition-row">
        <Choice
          label="Column"
          value={column}
          options={COLUMNS[table].map(({ name }) => [name, name])}
          onChange={change}
        />
        <Choice
          label="Operator"
          value={operator}
          options={(kind?.operators ?? []).map((name) => [name, OPERATOR_NAMES[name]])}
          onChange={(name) => setOperator(name as Operator)}
        />
      </div>
      {kind?.options ? (
        <CheckboxGroup className="checks" value={values} onChange={setValues}>
          <Label className="visually-hidden">Values</Label>
          {kind.options.map((option) => (
            <Checkbox className="check" value={option} key={option}>
              <span className="check-box">
                <Icon name="check" />
              </span>
              {option}
            </Checkbox>
          ))}
        </CheckboxGroup>
      ) : (
        <ValuesField
          hint={kind?.hint}
          values={values}
          typed={typed}
          onValues={setValues}
          onTyped={setTyped}
        />
      )}
      {wrong && (
        <p className="field-error" role="alert">
          {wrong}
        </p>
      )}
      <Button type="submit" className="button button-main" isDisabled={!all.length || wrong !== ""}>
        Apply
      </Button>
    </form>
  );
}

interface ValuesProps {
  hint: string | undefined;
  values: string[];
  typed: string;
  onValues: (values: string[]) => void;
  onTyped: (typed: string) => void;
}

/** Values that are typed; Tab or a comma ends one, Backspace takes the last one away. */
function ValuesField({ hint, values, typed, onValues, onTyped }: ValuesProps) {
  const take = () => {
    onValues([...new Set([...values, typed.trim()])]);
    onTyped("");
  };
  return (
    <div className="values">
      {values.map((value) => (
        <span className="chip" key={value}>
          <span className="chip-text">{value}</span>
          <Button
            className="chip-remove"
            aria-label={`Remove ${value}`}
            onPress={() => onValues(values.filter((one) => one !== value))}
          >
            <Icon name="cross" />
          </Button>
        </span>
      ))}
      <input
        aria-label="Values"
        // biome-ignore lint/a11y/noAutofocus: the dialog was opened to type here
        autoFocus
        value={typed}
        placeholder={values.length ? "or…" : (hint ?? "Type a value; Tab for another")}
        spellCheck={false}
        autoComplete="off"
        onChange={(event) => onTyped(event.target.value)}
        onKeyDown={(event) => {
          if ((event.key === "Tab" || event.key === ",") && typed.trim() && !event.shiftKey) {
            event.preventDefault();
            take();
          } else if (event.key === "Backspace" && !typed) {
            onValues(values.slice(0, -1));
          }
        }}
      />
    </div>
  );
}
