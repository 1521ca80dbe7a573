/** What the benchmark has the page itself measure. Runs in the page: nothing from outside of the function is there. */

export interface Watch {
  /** Milliseconds from the navigation until the first rows were painted. */
  first: Promise<number>;
  /** Begins to wait for the rows of another filter; the time is that of the next input, or of now. */
  expect: (param: string, fromInput: boolean) => void;
  /** Milliseconds until its rows were painted, and until everything was. */
  painted: Promise<{ rows: number; all: number }>;
  /** Times between frames from now on, milliseconds. */
  frames: () => () => number[];
}

declare global {
  interface Window {
    watch: Watch;
  }
}

export function watchPage(): void {
  /** The latest first page of rows: what was asked for, and its first row's id. */
  let page = { filter: "", id: "", at: 0 };
  let inFlight = 0;
  const ask = window.fetch;
  window.fetch = async (...args: Parameters<typeof fetch>) => {
    const url = new URL(args[0] instanceof Request ? args[0].url : String(args[0]), location.href);
    if (url.pathname.endsWith("/stream")) return ask(...args);
    inFlight += 1;
    try {
      const answer = await ask(...args);
      const text = await answer.clone().text();
      const asked = url.searchParams;
      if (/\/(runs|logs)$/.test(url.pathname) && !asked.has("count") && !asked.has("cursor")) {
        const [row] = (JSON.parse(text) as { items: { runId?: string; logId?: string }[] }).items;
        const id = (url.pathname.endsWith("/runs") ? row?.runId : row?.logId) ?? "";
        page = { filter: asked.get("filter") ?? "", id, at: performance.now() };
      }
      return answer;
    } finally {
      inFlight -= 1;
    }
  };

  /** When the first frame was painted in which something holds. */
  const until = (holds: () => boolean) =>
    new Promise<number>((resolve) => {
      const look = () => {
        if (!holds()) {
          requestAnimationFrame(look);
          return;
        }
        const channel = new MessageChannel();
        channel.port1.onmessage = () => resolve(performance.now());
        channel.port2.postMessage(null);
      };
      requestAnimationFrame(look);
    });
  const rows = () => document.querySelector('.grid-body [data-index="0"]');
  const shown = () =>
    page.id ? rows()?.textContent.includes(page.id) === true : document.querySelector(".state") !== null;

  let input = 0;
  for (const kind of ["pointerup", "keydown"]) {
    window.addEventListener(kind, (event) => {
      input = event.timeStamp;
    }, { capture: true });
  }

  window.watch = {
    first: until(() => rows() !== null),
    painted: Promise.resolve({ rows: 0, all: 0 }),
    expect: (param, fromInput) => {
      const begun = performance.now();
      const since = () => (fromInput ? input : begun);
      const isNew = () => page.at > begun && page.filter.includes(param);
      window.watch.painted = until(() => isNew() && shown()).then(async (at) => {
        const end = await until(() => inFlight === 0);
        return { rows: at - since(), all: end - since() };
      });
    },
    frames: () => {
      const gaps: number[] = [];
      let before: number | null = null;
      let goesOn = true;
      const frame = (now: number) => {
        if (before !== null) gaps.push(now - before);
        before = now;
        if (goesOn) requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
      return () => {
        goesOn = false;
        return gaps;
      };
    },
  };
}
