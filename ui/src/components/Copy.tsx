import { useEffect, useState } from "react";
import { Icon } from "./Icon";

/** Copies a text, and says so for a moment. */
export function Copy({ text, label }: { text: string; label: string }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return;
    const timer = setTimeout(() => setDone(false), 1_500);
    return () => clearTimeout(timer);
  }, [done]);
  const copy = () => {
    navigator.clipboard?.writeText(text).then(
      () => setDone(true),
      () => setDone(false),
    );
  };
  return (
    <button type="button" className="copy" aria-label={done ? "Copied" : label} onClick={copy}>
      <Icon name={done ? "check" : "copy"} />
    </button>
  );
}
