import { lazy, Suspense, useState } from "react";
import { Button, Dialog, DialogTrigger, Popover } from "react-aria-components";
import { minuteTime } from "../lib/format";
import { AGES, PRESETS, type Range, rangeLabel, rangeText, type Zone } from "../lib/range";
import { Icon } from "./Icon";

const CustomRange = lazy(() => import("./CustomRange"));

interface Props {
  range: Range;
  zone: Zone;
  onChange: (range: Range) => void;
}

/** Presets, and any range of minutes. */
export function RangePicker({ range, zone, onChange }: Props) {
  const [isOpen, setOpen] = useState(false);
  const [custom, setCustom] = useState(false);
  const choose = (next: Range) => {
    setOpen(false);
    onChange(next);
  };
  const chosen = rangeText(range) ?? "7d";
  const option = (text: string, name: string, next: Range) => (
    <Button
      key={text}
      className={`menu-item ${chosen === text ? "menu-item-chosen" : ""}`}
      onPress={() => choose(next)}
      aria-pressed={chosen === text}
    >
      {name}
    </Button>
  );
  return (
    <DialogTrigger
      isOpen={isOpen}
      onOpenChange={(open) => {
        setOpen(open);
        setCustom(range.kind === "custom");
      }}
    >
      <Button className="button range-button">
        <Icon name="calendar" />
        <span className="num">{rangeLabel(range, (time) => minuteTime(time, zone))}</span>
        <Icon name="chevron" />
      </Button>
      <Popover className="popover" placement="bottom end">
        <Dialog className="range-dialog" aria-label="Range of time">
          <div className="range-presets">
            {AGES.map(([age, name]) => option(age, name, { kind: "last", age }))}
            {PRESETS.map(([preset, name]) => option(preset, name, { kind: "preset", preset }))}
            <Button className="menu-item" onPress={() => setCustom(true)} aria-pressed={custom}>
              Custom range…
            </Button>
          </div>
          {custom && (
            <div className="range-custom">
              <Suspense fallback={<div className="skeleton skeleton-calendar" />}>
                <CustomRange range={range} zone={zone} onChange={choose} />
              </Suspense>
            </div>
          )}
        </Dialog>
      </Popover>
    </DialogTrigger>
  );
}
