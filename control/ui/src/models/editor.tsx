import { autocompletion, closeBrackets, completionKeymap, type CompletionContext } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { yaml } from "@codemirror/lang-yaml";
import { bracketMatching, foldGutter, HighlightStyle, indentOnInput, syntaxHighlighting } from "@codemirror/language";
import { lintGutter, setDiagnostics, type Diagnostic } from "@codemirror/lint";
import { MergeView } from "@codemirror/merge";
import { highlightSelectionMatches, searchKeymap } from "@codemirror/search";
import { EditorState, type Extension } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { useEffect, useRef } from "react";
import type { ModelMistake } from "../gen/control/v1/model_pb";
import { suggestions } from "./keys";

/** The look of the console, from its tokens. */
const look = EditorView.theme({
  "&": { backgroundColor: "var(--surface)", color: "var(--text)", fontSize: "12px", height: "100%" },
  ".cm-content": { fontFamily: "JetBrains Mono, monospace", caretColor: "var(--text)" },
  ".cm-gutters": { backgroundColor: "var(--surface)", color: "var(--muted)", border: "none" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "var(--raised)" },
  "&.cm-focused .cm-selectionBackground, .cm-selectionBackground, .cm-content ::selection": { backgroundColor: "var(--accent-soft) !important" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "-1px" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  ".cm-tooltip, .cm-panels": { backgroundColor: "var(--surface)", color: "var(--text)", border: "1px solid var(--border)" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { backgroundColor: "var(--accent-soft)", color: "var(--text)" },
  ".cm-diagnostic-error": { borderLeftColor: "var(--bad)" },
  ".cm-changedLine, .cm-insertedLine": { backgroundColor: "var(--ok-soft) !important" },
  "&.cm-merge-a .cm-changedLine, .cm-deletedChunk": { backgroundColor: "var(--bad-soft) !important" },
  ".cm-changedText": { background: "none !important", textDecoration: "underline" },
  ".cm-collapsedLines": { background: "var(--raised)", color: "var(--muted)" },
  // The fonts do not have the library's own mark.
  ".cm-collapsedLines:before, .cm-collapsedLines:after": { content: '"…"' },
});
const colors = syntaxHighlighting(
  HighlightStyle.define([
    { tag: [tags.definition(tags.propertyName), tags.propertyName], color: "var(--accent)" },
    { tag: tags.comment, color: "var(--muted)" },
    { tag: [tags.string, tags.content], color: "var(--text)" },
    { tag: [tags.labelName, tags.typeName], color: "var(--info)" },
  ]),
);
const plain: Extension = [look, colors, yaml(), lineNumbers(), EditorView.lineWrapping];

function complete(context: CompletionContext) {
  const found = suggestions(context.state.sliceDoc(0, context.pos));
  if (!found || (!context.explicit && context.pos === found.from)) return null;
  return { from: found.from, options: found.options.map((label) => ({ label, type: found.kind === "key" ? "property" : "constant", apply: found.kind === "key" ? `${label}: ` : label })), validFor: /^\w*$/ };
}

function diagnostics(state: EditorState, mistakes: readonly ModelMistake[], severity: Diagnostic["severity"]): Diagnostic[] {
  return mistakes.map(({ line, message }) => {
    const at = state.doc.line(Math.min(Math.max(line, 1), state.doc.lines));
    return { from: at.from + (at.text.length - at.text.trimStart().length), to: at.to, severity, message };
  });
}

/** An editor of a model's document: completes the keys of the place, and marks mistakes and warnings at their lines. */
export function Editor({ text, mistakes, warnings, jump, onChange }: { text: string; mistakes: readonly ModelMistake[]; warnings: readonly ModelMistake[]; jump: { line: number } | undefined; onChange: (text: string) => void }) {
  const place = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView>(undefined);
  const change = useRef(onChange);
  const start = useRef(text);
  useEffect(() => {
    change.current = onChange;
  });
  useEffect(() => {
    if (!place.current) return;
    const made = new EditorView({
      parent: place.current,
      state: EditorState.create({
        doc: start.current,
        extensions: [
          plain,
          history(),
          drawSelection(),
          indentOnInput(),
          bracketMatching(),
          closeBrackets(),
          foldGutter(),
          highlightActiveLine(),
          highlightSelectionMatches(),
          lintGutter(),
          autocompletion({ override: [complete] }),
          // Tab indents; Escape, then Tab leaves the editor (WCAG 2.1.2).
          keymap.of([...completionKeymap, ...defaultKeymap, ...historyKeymap, ...searchKeymap, indentWithTab]),
          EditorView.contentAttributes.of({ "aria-label": "Document (YAML)", tabindex: "0", "aria-description": "Press Escape, then Tab to leave the editor." }),
          EditorView.updateListener.of((update) => {
            if (update.docChanged) change.current(update.state.doc.toString());
          }),
        ],
      }),
    });
    view.current = made;
    return () => made.destroy();
  }, []);
  useEffect(() => {
    const made = view.current;
    if (made) made.dispatch(setDiagnostics(made.state, [...diagnostics(made.state, mistakes, "error"), ...diagnostics(made.state, warnings, "warning")]));
  }, [mistakes, warnings]);
  useEffect(() => {
    const made = view.current;
    if (made && made.state.doc.toString() !== text) made.dispatch({ changes: { from: 0, to: made.state.doc.length, insert: text } });
  }, [text]);
  useEffect(() => {
    const made = view.current;
    if (!made || !jump) return;
    const { from } = made.state.doc.line(Math.min(Math.max(jump.line, 1), made.state.doc.lines));
    made.dispatch({ selection: { anchor: from }, effects: EditorView.scrollIntoView(from, { y: "center" }) });
    made.focus();
  }, [jump]);
  return <div ref={place} className="border-control h-[34rem] max-h-[70dvh] overflow-hidden rounded-md border" />;
}

/** Two documents side by side, with what differs; equal parts are folded. */
export function SideBySide({ before, after }: { before: string; after: string }) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!place.current) return;
    const fixed = (label: string): Extension => [plain, EditorState.readOnly.of(true), EditorView.contentAttributes.of({ "aria-label": label, tabindex: "0" })];
    const made = new MergeView({
      parent: place.current,
      a: { doc: before, extensions: fixed("The model in use") },
      b: { doc: after, extensions: fixed("The changed model") },
      collapseUnchanged: { margin: 2, minSize: 6 },
      gutter: true,
    });
    return () => made.destroy();
  }, [before, after]);
  return <div ref={place} className="border-border max-h-[70dvh] min-w-0 overflow-auto rounded-md border" />;
}
