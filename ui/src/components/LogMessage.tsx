import { memo } from "react";
import { pieces } from "../lib/ansi";

/** A message with its ANSI colours; what was searched for is marked. Markup in it stays text. */
export const LogMessage = memo(function LogMessage({
  message,
  search = "",
}: {
  message: string;
  search?: string;
}) {
  return pieces(message, search).map((piece, i) => {
    const key = i;
    if (piece.found) {
      return (
        <mark className={piece.style || undefined} key={key}>
          {piece.text}
        </mark>
      );
    }
    return piece.style ? (
      <span className={piece.style} key={key}>
        {piece.text}
      </span>
    ) : (
      piece.text
    );
  });
});
