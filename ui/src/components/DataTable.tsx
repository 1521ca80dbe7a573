import {
  type Cell,
  type ColumnDef,
  createRow,
  flexRender,
  getCoreRowModel,
  type Row,
  useReactTable,
} from "@tanstack/react-table";
import { useWindowVirtualizer } from "@tanstack/react-virtual";
import { memo, type ReactNode, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";

declare module "@tanstack/react-table" {
  interface ColumnMeta<TData, TValue> {
    /** Class of its heading and cells. */
    className?: string;
    /** Names the value where a row has no headings. */
    label?: string;
  }
}

interface Props<T> {
  rows: T[];
  // biome-ignore lint/suspicious/noExplicitAny: each column has values of a type of its own
  columns: ColumnDef<T, any>[];
  /** Tells rows apart; the same function each time. */
  idOf: (row: T) => string;
  label: string;
  /** Class that lays the columns out. */
  layout: string;
  /** About how high a row is, in pixels. */
  rowHeight: number;
  /** Whether a row is chosen. */
  isChosen?: (row: T) => boolean;
  rowClass?: (row: T) => string;
  /** In place of the cells, where this gives something. */
  whole?: (row: T) => ReactNode;
  /** Behind the last row. */
  onEnd?: () => void;
  /** Where a row gets scrolled to. */
  chosenIndex?: number;
}

const NONE: never[] = [];

/** Makes the table's row of a thing when it is asked for. A table's rows are large: thousands that nobody sees would be most of the memory. */
function useRowOf<T extends object>(columns: Props<T>["columns"], idOf: (row: T) => string) {
  const table = useReactTable<T>({ data: NONE, columns, getCoreRowModel: getCoreRowModel() });
  const [made] = useState(() => new WeakMap<T, Row<T>>());
  const rowOf = (thing: T, index: number) => {
    const known = made.get(thing);
    if (known) return known;
    const row = createRow(table, idOf(thing), thing, index, 0);
    made.set(thing, row);
    return row;
  };
  return { table, rowOf };
}

/** A table whose rows exist only while they can be seen. The page scrolls; the headings stay. */
export function DataTable<T extends object>(props: Props<T>) {
  const { rows, idOf, label, layout, rowHeight, onEnd, chosenIndex = -1 } = props;
  const body = useRef<HTMLDivElement>(null);
  const [margin, setMargin] = useState(0);
  const { table, rowOf } = useRowOf(props.columns, idOf);
  // Another function means other rows, all of which are laid out anew.
  const keyOf = useCallback(
    (index: number) => {
      const row = rows[index];
      return row ? idOf(row) : index;
    },
    [rows, idOf],
  );
  const virtual = useWindowVirtualizer({
    count: rows.length,
    estimateSize: () => rowHeight,
    overscan: 12,
    scrollMargin: margin,
    // What stands above stays above: the page's head and the headings.
    scrollPaddingStart: 100,
    scrollPaddingEnd: 60,
    getItemKey: keyOf,
  });
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? -1;

  useLayoutEffect(() => {
    const measure = () => {
      const top = body.current?.getBoundingClientRect().top;
      if (top !== undefined) setMargin(Math.round(top + window.scrollY));
    };
    measure();
    // What is above may grow.
    const observer = new ResizeObserver(measure);
    observer.observe(document.body);
    return () => observer.disconnect();
  }, []);

  useEffect(() => {
    if (onEnd && last >= rows.length - 20) onEnd();
  }, [last, rows.length, onEnd]);

  useEffect(() => {
    if (chosenIndex >= 0) virtual.scrollToIndex(chosenIndex, { align: "auto" });
  }, [chosenIndex, virtual]);

  return (
    <div className={`grid ${layout}`} role="table" aria-label={label} aria-rowcount={rows.length + 1}>
      <div className="grid-head" role="rowgroup">
        {table.getHeaderGroups().map((group) => (
          <div className="grid-row" role="row" aria-rowindex={1} key={group.id}>
            {group.headers.map((header) => (
              <div
                className={`cell ${header.column.columnDef.meta?.className ?? ""}`}
                role="columnheader"
                key={header.id}
              >
                {flexRender(header.column.columnDef.header, header.getContext())}
              </div>
            ))}
          </div>
        ))}
      </div>
      <div className="grid-body" role="rowgroup" ref={body} style={{ height: virtual.getTotalSize() }}>
        {items.map((item) => {
          const thing = rows[item.index];
          if (!thing) return null;
          return (
            <GridRow
              key={item.key}
              cells={rowOf(thing, item.index).getAllCells() as Cell<unknown, unknown>[]}
              index={item.index}
              offset={item.start - margin}
              measure={virtual.measureElement}
              chosen={props.isChosen?.(thing)}
              className={props.rowClass?.(thing) ?? ""}
              whole={props.whole?.(thing) ?? null}
            />
          );
        })}
      </div>
    </div>
  );
}

interface RowProps {
  /** Others as soon as the row or the columns are others. */
  cells: Cell<unknown, unknown>[];
  index: number;
  offset: number;
  measure: (node: Element | null) => void;
  /** Whether it is the chosen one; not set where rows can not be chosen. */
  chosen: boolean | undefined;
  className: string;
  whole: ReactNode;
}

/** Drawn anew only when something of its own changes, so that scrolling and choosing cost what they change. */
const GridRow = memo(function GridRow({ cells, index, offset, measure, chosen, className, whole }: RowProps) {
  return (
    <div
      className={`grid-row grid-row-data ${chosen ? "chosen" : ""} ${className}`}
      role="row"
      aria-rowindex={index + 2}
      aria-selected={chosen}
      data-index={index}
      ref={measure}
      style={{ transform: `translateY(${offset}px)` }}
    >
      {whole !== null ? (
        <div className="cell cell-whole" role="cell" aria-colspan={cells.length}>
          {whole}
        </div>
      ) : (
        cells.map((cell) => (
          <div
            className={`cell ${cell.column.columnDef.meta?.className ?? ""}`}
            role="cell"
            data-label={cell.column.columnDef.meta?.label}
            key={cell.id}
          >
            {flexRender(cell.column.columnDef.cell, cell.getContext())}
          </div>
        ))
      )}
    </div>
  );
});
