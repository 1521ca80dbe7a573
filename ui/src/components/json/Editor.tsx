import { defaultKeymap } from "@codemirror/commands";
import { json } from "@codemirror/lang-json";
import {
  codeFolding,
  foldAll,
  foldGutter,
  foldKeymap,
  HighlightStyle,
  syntaxHighlighting,
  unfoldAll,
} from "@codemirror/language";
import { openSearchPanel, search, searchKeymap } from "@codemirror/search";
import { EditorState } from "@codemirror/state";
import { EditorView, keymap } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { useEffect, useRef } from "react";
import { Button } from "react-aria-components";

const COLOURS = HighlightStyle.define([
  { tag: tags.propertyName, color: "var(--json-key)" },
  { tag: tags.string, color: "var(--json-string)" },
  { tag: tags.number, color: "var(--json-number)" },
  { tag: [tags.bool, tags.null], color: "var(--json-word)" },
  { tag: tags.punctuation, color: "var(--ink-soft)" },
]);

const THEME = EditorView.theme({
  "&": { fontSize: "13px", color: "var(--ink)", maxHeight: "26rem" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "-2px" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.55" },
  ".cm-gutters": { backgroundColor: "transparent", border: "none", color: "var(--ink-soft)" },
  ".cm-panels": { backgroundColor: "var(--raised)", color: "var(--ink)" },
  ".cm-panels-top": { borderBottom: "1px solid var(--line)" },
  ".cm-panel.cm-search": { padding: "6px 8px" },
  ".cm-textfield": {
    backgroundColor: "var(--card)",
    border: "1px solid var(--line-strong)",
    color: "var(--ink)",
  },
  ".cm-button": {
    backgroundImage: "none",
    backgroundColor: "var(--card)",
    border: "1px solid var(--line-strong)",
    color: "var(--ink)",
  },
  ".cm-searchMatch": { backgroundColor: "var(--found)" },
  ".cm-searchMatch-selected": { backgroundColor: "var(--found-strong)" },
  ".cm-foldPlaceholder": {
    backgroundColor: "var(--raised)",
    border: "1px solid var(--line)",
    color: "var(--ink-soft)",
  },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, ::selection": {
    backgroundColor: "var(--selection)",
  },
});

function extensions(label: string) {
  return [
    json(),
    codeFolding(),
    foldGutter(),
    syntaxHighlighting(COLOURS),
    search({ top: true }),
    keymap.of([...searchKeymap, ...foldKeymap, ...defaultKeymap]),
    EditorState.readOnly.of(true),
    EditorView.lineWrapping,
    EditorView.contentAttributes.of({ "aria-label": label, "aria-readonly": "true" }),
    THEME,
  ];
}

/** JSON to read: folding, search, selection. In a shadow root, where its styles need no exception from the page's policy. */
export default function Editor({ text, label }: { text: string; label: string }) {
  const host = useRef<HTMLDivElement>(null);
  const editor = useRef<EditorView | null>(null);
  // One editor goes through many records: only what it holds changes.
  useEffect(() => {
    const node = host.current;
    if (!node) return;
    const state = EditorState.create({ doc: text, extensions: extensions(label) });
    if (editor.current) {
      editor.current.setState(state);
      return;
    }
    const root = node.shadowRoot ?? node.attachShadow({ mode: "open" });
    editor.current = new EditorView({ state, parent: root, root });
  }, [text, label]);
  useEffect(
    () => () => {
      editor.current?.destroy();
      editor.current = null;
    },
    [],
  );
  const act = (command: (view: EditorView) => boolean) => () => {
    if (editor.current) command(editor.current);
  };
  return (
    <>
      <div className="json-tools">
        <Button className="button-quiet" onPress={act(foldAll)}>
          Fold all
        </Button>
        <Button className="button-quiet" onPress={act(unfoldAll)}>
          Unfold all
        </Button>
        <Button className="button-quiet" onPress={act(openSearchPanel)}>
          Search
        </Button>
      </div>
      <div className="json-editor" data-takes-keys="" ref={host} />
    </>
  );
}
