import type { ReactNode } from "react";
import { Button } from "react-aria-components";

interface Props {
  column: string;
  value: string;
  onFilter: (column: string, value: string) => void;
  children?: ReactNode;
}

/** A value of a row; pressing it shows only rows that have it. */
export function FilterCell({ column, value, onFilter, children }: Props) {
  if (!value) return null;
  return (
    <Button
      className="cell-value"
      onPress={() => onFilter(column, value)}
      aria-label={`${value}: show only this ${column}`}
    >
      {children ?? value}
    </Button>
  );
}
