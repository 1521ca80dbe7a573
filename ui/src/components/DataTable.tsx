import { type Cell, flexRender, type Table } from "@tanstack/react-table";
import { useWindowVirtualizer } from "@tanstack/react-virtual";
import { memo, type ReactNode, useEffect, useLayoutEffect, useRef, useState } from "react";

declare module "@tanstack/react-table" {
  interface ColumnMeta<TData, TValue> {
    /** Class of its heading and cells. */
    className?: string;
    /** Names the value where a row has no headings. */
    label?: string;
  }
}

interface Props<T> {
  table: Table<T>;
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

/** A table whose rows exist only while they can be seen. The page scrolls; the headings stay. */
export function DataTable<T>(props: Props<T>) {
  const { table, label, layout, rowHeight, onEnd, chosenIndex = -1 } = props;
  const body = useRef<HTMLDivElement>(null);
  const [margin, setMargin] = useState(0);
  const rows = table.getRowModel().rows;
  const virtual = useWindowVirtualizer({
    count: rows.length,
    estimateSize: () => rowHeight,
    overscan: 12,
    scrollMargin: margin,
    // What stands above stays above: the page's head and the headings.
    scrollPaddingStart: 100,
    scrollPaddingEnd: 60,
    getItemKey: (index) => rows[index]?.id ?? index,
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
          const row = rows[item.index];
          if (!row) return null;
          return (
            <GridRow
              key={item.key}
              cells={row.getVisibleCells() as Cell<unknown, unknown>[]}
              index={item.index}
              offset={item.start - margin}
              measure={virtual.measureElement}
              chosen={props.isChosen?.(row.original)}
              className={props.rowClass?.(row.original) ?? ""}
              whole={props.whole?.(row.original) ?? null}
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
