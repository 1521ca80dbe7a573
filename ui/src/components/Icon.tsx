/** Icons of 16 × 16, drawn with the colour of the text. */
const PATHS = {
  check: "M3.5 8.5l3 3 6-7",
  cross: "M4.5 4.5l7 7m0-7l-7 7",
  clock: "M8 4.5V8l2.5 1.5M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0z",
  copy: "M5.5 5.5v-3h8v8h-3m-8-5h8v8h-8z",
  chevron: "M4.5 6.5L8 10l3.5-3.5",
  up: "M4.5 9.5L8 6l3.5 3.5",
  right: "M6.5 4.5L10 8l-3.5 3.5",
  filter: "M2.5 4h11M4.5 8h7M6.5 12h3",
  plus: "M8 3.5v9M3.5 8h9",
  search: "M10.5 10.5l3 3M12 7A5 5 0 1 1 2 7a5 5 0 0 1 10 0z",
  calendar: "M2.5 4.5h11v9h-11zM2.5 7.5h11M5.5 2.5v3M10.5 2.5v3",
  download: "M8 2.5v7.5m-3-3l3 3 3-3M3 13.5h10",
  user: "M8 8a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5zM3 13.5c.6-2.3 2.5-3.5 5-3.5s4.400 1.200 5 3.500",
  info: "M8 7.500v3.500M8 5v.1M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0z",
  warning: "M8 6.500v3M8 11.400v.1M8 2.500l6 11H2z",
  play: "M5.500 3.500l7 4.500-7 4.500z",
  pause: "M5.500 3.500v9M10.500 3.500v9",
  wrap: "M2.500 4h11M2.500 8h9a2 2 0 0 1 0 4H8m1.500-1.500L8 12l1.500 1.500",
  terminal: "M3 5l3 3-3 3M8 11.500h5",
  layers: "M8 2.500l6 3-6 3-6-3zM2 8.500l6 3 6-3",
  list: "M2.500 4.500h.1M2.500 8h.1M2.500 11.500h.1M5.500 4.500h8M5.500 8h8M5.500 11.500h8",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
