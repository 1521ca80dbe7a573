import { useEffect, useRef } from "react";

/** Whether keys are for a field, a menu or a dialog just now. */
function isTaken(event: KeyboardEvent): boolean {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return true;
  const target = event.target instanceof Element ? event.target : null;
  return Boolean(
    target?.closest(
      "input, textarea, select, [contenteditable=true], [data-takes-keys], [role=menu], [role=listbox], [role=dialog]",
    ),
  );
}

/** Calls what belongs to a key, wherever the focus is. Names are those of `KeyboardEvent.key`. */
export function useKeys(keys: Record<string, (event: KeyboardEvent) => void>): void {
  const current = useRef(keys);
  current.current = keys;
  useEffect(() => {
    const listen = (event: KeyboardEvent) => {
      if (isTaken(event)) return;
      const act = current.current[event.key];
      if (!act) return;
      event.preventDefault();
      act(event);
    };
    document.addEventListener("keydown", listen);
    return () => document.removeEventListener("keydown", listen);
  }, []);
}
