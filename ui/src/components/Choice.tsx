import { Button, ListBox, ListBoxItem, Popover, Select, SelectValue } from "react-aria-components";
import { Icon } from "./Icon";

interface Props {
  label: string;
  value: string;
  options: [string, string][];
  onChange: (value: string) => void;
  isDisabled?: boolean;
}

/** One of several values. */
export function Choice({ label, value, options, onChange, isDisabled = false }: Props) {
  return (
    <Select
      aria-label={label}
      className="choice"
      selectedKey={value}
      isDisabled={isDisabled}
      onSelectionChange={(key) => onChange(String(key ?? ""))}
    >
      <Button className="button">
        <SelectValue />
        <Icon name="chevron" />
      </Button>
      <Popover className="popover">
        <ListBox className="menu">
          {options.map(([id, name]) => (
            <ListBoxItem className="menu-item" id={id} key={id} textValue={name}>
              {name}
            </ListBoxItem>
          ))}
        </ListBox>
      </Popover>
    </Select>
  );
}
