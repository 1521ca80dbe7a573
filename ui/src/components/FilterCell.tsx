import type { ReactNode } from "react";

interface Props {
  column: string;
  value: string;
  onFilter: (column: string, value: string) => void;
  children?: ReactNode;
}

/**
 * A value of a row; pressing it shows only rows that have it. The browser's own button, as all in rows: those of the component
 * library cost many times as much, and rows come by the hundred while a table scrolls or a log is followed.
 */
export function FilterCell({ column, value, onFilter, children }: Props) {
  if (!value) return null;
  return (
    <button
      type="button"
      className="cell-value"
      onClick={() => onFilter(column, value)}
      aria-label={`${value}: show only this ${column}`}
    >
      {children ?? value}
    </button>
  );
}
