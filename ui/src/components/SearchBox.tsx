import { useEffect, useRef, useState } from "react";
import { Icon } from "./Icon";

interface Props {
  label: string;
  value: string;
  onChange: (value: string) => void;
  disabled?: boolean;
  hint?: string;
}

/** A search that takes effect a moment after the last key, or at once with Enter. `/` goes there. */
export function SearchBox({ label, value, onChange, disabled = false, hint }: Props) {
  const [text, setText] = useState(value);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => setText(value), [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const change = (next: string, wait: number) => {
    setText(next);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onChange(next.trim()), wait);
  };
  return (
    <label className="search" title={hint}>
      <span className="visually-hidden">{label}</span>
      <Icon name="search" />
      <input
        type="search"
        data-search=""
        value={text}
        placeholder={label}
        disabled={disabled}
        spellCheck={false}
        autoComplete="off"
        onChange={(event) => change(event.target.value, 250)}
        onKeyDown={(event) => {
          if (event.key === "Enter") change(text, 0);
          if (event.key === "Escape" && text) {
            event.stopPropagation();
            change("", 0);
          }
        }}
      />
    </label>
  );
}
