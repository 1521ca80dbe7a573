import { fromDate, getLocalTimeZone, now as nowIn, type ZonedDateTime } from "@internationalized/date";
import { useState } from "react";
import {
  Button,
  CalendarCell,
  CalendarGrid,
  DateField,
  DateInput,
  DateSegment,
  Heading,
  Label,
  RangeCalendar,
} from "react-aria-components";
import { bounds, type Range, type Zone } from "../lib/range";
import { Icon } from "./Icon";

interface Props {
  range: Range;
  zone: Zone;
  onChange: (range: Range) => void;
}

/** Two moments, to the minute, in the chosen zone; days can be picked in the calendar. */
export default function CustomRange({ range, zone, onChange }: Props) {
  const name = zone === "utc" ? "UTC" : getLocalTimeZone();
  const [[from, to], setBoth] = useState<[ZonedDateTime, ZonedDateTime]>(() => {
    const now = new Date();
    const current = bounds(range, zone, now);
    const end = current.to && current.to < now ? current.to : now;
    return [fromDate(current.from ?? new Date(end.getTime() - 7 * 8.64e7), name), fromDate(end, name)];
  });
  const wrong = from.compare(to) >= 0;
  const field = (label: string, value: ZonedDateTime, change: (value: ZonedDateTime) => void) => (
    <DateField
      value={value}
      granularity="minute"
      hourCycle={24}
      hideTimeZone
      onChange={(next) => next && change(next)}
      className="date-field"
    >
      <Label>{label}</Label>
      <DateInput className="date-input">
        {(segment) => <DateSegment className="date-segment" segment={segment} />}
      </DateInput>
    </DateField>
  );
  return (
    <form
      className="custom-range"
      onSubmit={(event) => {
        event.preventDefault();
        if (!wrong) onChange({ kind: "custom", from: from.toDate(), to: to.toDate() });
      }}
    >
      <RangeCalendar
        aria-label="Days"
        className="calendar"
        firstDayOfWeek="mon"
        maxValue={nowIn(name)}
        value={{ start: from, end: to }}
        onChange={({ start, end }) =>
          setBoth([
            start.set({ hour: 0, minute: 0, second: 0, millisecond: 0 }),
            end.add({ days: 1 }).set({ hour: 0, minute: 0, second: 0, millisecond: 0 }),
          ])
        }
      >
        <header>
          <Button slot="previous" className="button-quiet">
            <Icon name="chevron" />
          </Button>
          <Heading />
          <Button slot="next" className="button-quiet">
            <Icon name="chevron" />
          </Button>
        </header>
        <CalendarGrid>{(date) => <CalendarCell date={date} className="calendar-cell" />}</CalendarGrid>
      </RangeCalendar>
      {field("From", from, (next) => setBoth([next, to]))}
      {field("To", to, (next) => setBoth([from, next]))}
      <p className="soft">Times of {name}. The end does not belong to the range.</p>
      {wrong && (
        <p className="field-error" role="alert">
          The beginning must be before the end.
        </p>
      )}
      <Button type="submit" className="button button-main" isDisabled={wrong}>
        Apply
      </Button>
    </form>
  );
}
