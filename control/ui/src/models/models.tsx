import { useMutation, useQuery } from "@connectrpc/connect-query";
import { Suspense, useEffect, useMemo, useState } from "react";
import { ModelService, type ModelDocument, type ModelMistake } from "../gen/control/v1/model_pb";
import { instant } from "../app/format";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Confirm } from "../parts/action";
import { Card } from "../parts/card";
import { Text } from "../parts/field";
import { onDemand } from "../parts/later";
import { Drawer, Facts, Page } from "../parts/page";
import { Answered, Badge, Empty, Notice, Problem, Skeleton } from "../parts/state";
import { Table } from "../parts/table";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";
import { toast } from "../parts/toast";
import { outline } from "./outline";
import { Progress } from "./progress";

const Editor = onDemand(async () => ({ default: (await import("./editor")).Editor }));
const SideBySide = onDemand(async () => ({ default: (await import("./editor")).SideBySide }));

/** The model in use: changed, checked and applied here, and what was applied before. */
export function Models() {
  const [get, set] = useUrl();
  const model = useQuery(ModelService.method.getModel, {});
  const history = useQuery(ModelService.method.listModels, {});
  const used = model.data?.document;
  const again = () => {
    void model.refetch();
    void history.refetch();
  };
  const earlier = history.data?.documents.find((one) => identify(one) === get("open"));
  return (
    <Page
      title="Models"
      summary={
        used ? (
          <span className="flex flex-wrap items-center gap-2">
            In use: <code>{used.revision}</code>
            {used.by ? (
              <span>
                applied by {used.by}, <Time of={used.applied} />
              </span>
            ) : (
              "that the nodes started with"
            )}
          </span>
        ) : null
      }
      detail={earlier && used ? <Earlier key={identify(earlier)} document={earlier} current={used} onApplied={again} onClose={() => set({ open: "" })} /> : null}
    >
      <Answered of={model}>{(data) => (data.document ? <Change key={data.document.revision} current={data.document} onApplied={again} /> : <Empty title="There is no model." />)}</Answered>
      <Progress applied={used?.applied} />
      <section aria-label="History" className="flex flex-col gap-2">
        <h2>History</h2>
        <Answered of={history}>
          {(data) => (
            <Table
              label="Applied models"
              rows={data.documents}
              id={identify}
              selected={get("open")}
              onSelect={(one) => set({ open: identify(one) })}
              empty={<Empty title="No model has been applied.">The model in use is the one that the nodes started with. Change the document above, and apply it.</Empty>}
              columns={[
                { name: "Revision", width: 180, value: (one) => one.revision },
                { name: "State", width: 110, value: (one) => (one.revision === used?.revision ? "in use" : ""), cell: (one) => (one.revision === used?.revision ? <Badge tone="ok">in use</Badge> : "") },
                { name: "Applied", width: timeWidth, value: (one) => instant(one.applied), cell: (one) => (one.by === "" ? "the first model" : <Time of={one.applied} />) },
                { name: "By", value: (one) => one.by },
                { name: "Note", width: 300, value: (one) => one.note },
              ]}
            />
          )}
        </Answered>
      </section>
    </Page>
  );
}

function identify(document: ModelDocument): string {
  return `${document.revision} ${instant(document.applied)}`;
}

/** Milliseconds after the last key when the server checks the document. */
const pause = 500;

const none: ModelMistake[] = [];

/** The server's check of a text, some time after its last change; undefined for the text in use. */
function useCheck(text: string, current: string) {
  const [asked, setAsked] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => setAsked(text), pause);
    return () => clearTimeout(timer);
  }, [text]);
  const check = useQuery(ModelService.method.checkModel, { text: asked }, { enabled: asked !== current && asked.trim() !== "", staleTime: 60_000 });
  return { data: asked === text && text !== current ? check.data : undefined, error: check.error };
}

function Mistakes({ mistakes, tone, onJump }: { mistakes: readonly ModelMistake[]; tone: string; onJump: (line: number) => void }) {
  return (
    <ul className="flex flex-col gap-1">
      {mistakes.map((mistake) => (
        <li key={mistake.line + mistake.message}>
          {mistake.line === 0 ? (
            <span className={`${tone} break-words`}>{mistake.message}</span>
          ) : (
            <button type="button" className={`${tone} cursor-pointer text-left break-words hover:underline`} onClick={() => onJump(mistake.line)}>
              Line {mistake.line}: {mistake.message}
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}

function Change({ current, onApplied }: { current: ModelDocument; onApplied: () => void }) {
  const [text, setText] = useState(current.text);
  const [jump, setJump] = useState<{ line: number }>();
  const { data: checked, error } = useCheck(text, current.text);
  const mistakes = checked?.mistakes ?? none;
  const warnings = checked?.warnings ?? none;
  const changed = text !== current.text;
  return (
    <div className={`grid gap-4 ${changed ? "lg:grid-cols-[11rem_minmax(0,1fr)] xl:grid-cols-[11rem_minmax(0,1fr)_minmax(0,1fr)]" : "lg:grid-cols-[11rem_minmax(0,1fr)]"}`}>
      <Outline text={text} onJump={(line) => setJump({ line })} />
      <Suspense fallback={<Skeleton lines={12} />}>
        <Editor text={text} mistakes={mistakes} warnings={warnings} jump={jump} onChange={setText} />
      </Suspense>
      {changed ? (
        <div className="flex min-w-0 flex-col gap-3 max-xl:lg:col-span-2">
          {error ? <Problem error={error} /> : null}
          {checked === undefined ? (
            <p role="status" className="text-muted">
              Checking…
            </p>
          ) : mistakes.length > 0 ? (
            <div role="alert" className="border-bad bg-surface rounded-lg border border-l-4 p-3">
              <Mistakes mistakes={mistakes} tone="text-bad" onJump={(line) => setJump({ line })} />
            </div>
          ) : (
            <>
              <p role="status">{checked.diff === "" ? "It means the same as the model in use." : `No mistakes. Views to rebuild: ${checked.rebuiltViews.join(", ") || "none"}.`}</p>
              {warnings.length > 0 ? (
                <section aria-label="Warnings" className="border-warn bg-surface rounded-lg border border-l-4 p-3">
                  <p className="mb-2 font-medium">{warnings.length === 1 ? "One warning" : `${warnings.length} warnings`}. The model can be applied nevertheless.</p>
                  <Mistakes mistakes={warnings} tone="text-warn" onJump={(line) => setJump({ line })} />
                </section>
              ) : null}
              <Apply text={text} revision={checked.diff === "" ? "" : current.revision} rebuilt={checked.rebuiltViews} onApplied={onApplied} />
            </>
          )}
          <section aria-label="Differences" className="min-w-0">
            <Suspense fallback={<Skeleton lines={8} />}>
              <SideBySide before={current.text} after={text} />
            </Suspense>
          </section>
          <div>
            <button type="button" className="button" onClick={() => setText(current.text)}>
              Discard the changes
            </button>
          </div>
        </div>
      ) : (
        <p className="text-muted lg:col-span-2">Change the document: it is checked as you type, and what differs is shown beside it.</p>
      )}
    </div>
  );
}

const sections = [
  ["aggregates", "Aggregates"],
  ["views", "Views"],
  ["workflows", "Workflows"],
] as const;

/** What the document names; each leads to its line. */
function Outline({ text, onJump }: { text: string; onJump: (line: number) => void }) {
  const entries = useMemo(() => outline(text), [text]);
  return (
    <nav aria-label="Outline" className="panel hidden max-h-[min(34rem,70dvh)] flex-col gap-3 overflow-y-auto p-3 lg:flex">
      {sections.map(([section, title]) => {
        const of = entries.filter((one) => one.section === section);
        return of.length === 0 ? null : (
          <section key={section}>
            <h3 className="text-muted text-sm font-normal">{title}</h3>
            <ul>
              {of.map((one) => (
                <li key={`${one.aggregate} ${one.name} ${one.line}`}>
                  <button type="button" className={`hover:bg-raised w-full cursor-pointer truncate rounded px-1.5 py-0.5 text-left ${one.aggregate === "" ? "" : "text-muted pl-5"}`} title={`Line ${one.line}`} onClick={() => onJump(one.line)}>
                    {one.name}
                  </button>
                </li>
              ))}
            </ul>
          </section>
        );
      })}
    </nav>
  );
}

/** Applies a text in the place of the model with a revision; "" is nothing to apply. */
function Apply({ text, revision, rebuilt, note: given = "", onApplied, label = "Apply…" }: { text: string; revision: string; rebuilt: string[]; note?: string; onApplied: () => void; label?: string }) {
  const [note, setNote] = useState(given);
  const refusal = useRefusal("fleet.admin");
  const apply = useMutation(ModelService.method.applyModel);
  return (
    <div className="flex flex-wrap items-end gap-2">
      <Text label="Note" value={note} onChange={setNote} placeholder="why" />
      <Confirm
        title="Apply"
        name={revision}
        refusal={refusal}
        disabled={revision === ""}
        what={`All nodes use this model instead of ${revision}. ${rebuilt.length > 0 ? `The views ${rebuilt.join(", ")} are rebuilt for every tenant while the current ones stay available.` : "No view is rebuilt."}`}
        run={async () => {
          const { nodes } = await apply.mutateAsync({ text, expectedRevision: revision, note });
          const behind = nodes.filter((node) => node.problem !== "");
          if (behind.length > 0) toast(`The model is applied; ${behind.map((node) => `${node.node}: ${node.problem}`).join("; ")}`, "bad");
          else toast("The model is applied.");
          onApplied();
        }}
      >
        {label}
      </Confirm>
    </div>
  );
}

/** A model of before: what differs from the one in use, and the way back to it. */
function Earlier({ document, current, onApplied, onClose }: { document: ModelDocument; current: ModelDocument; onApplied: () => void; onClose: () => void }) {
  const same = document.revision === current.revision;
  const check = useQuery(ModelService.method.checkModel, { text: document.text }, { enabled: !same && document.text !== "", staleTime: 60_000 });
  return (
    <Drawer
      title={document.revision}
      label={`Model ${document.revision}`}
      badge={same ? <Badge tone="ok">in use</Badge> : <Badge tone="muted">earlier</Badge>}
      onClose={onClose}
      actions={
        same || document.text === "" ? null : (
          <Answered of={check}>
            {(data) =>
              data.mistakes.length > 0 ? (
                <Notice tone="bad">It cannot be applied any more: line {data.mistakes[0]?.line}: {data.mistakes[0]?.message}</Notice>
              ) : (
                <Apply text={document.text} revision={data.diff === "" ? "" : current.revision} rebuilt={data.rebuiltViews} note={`back to ${document.revision}`} label="Roll back to it…" onApplied={onApplied} />
              )
            }
          </Answered>
        )
      }
    >
      <Facts
        of={[
          ["Applied", document.by === "" ? "it is the model that the platform started with" : <Time key="t" of={document.applied} />],
          ["By", document.by],
          ["Note", document.note],
        ]}
      />
      {document.text === "" ? (
        <p className="text-muted">Its text is not in the list, which is too long: the audit records name who applied it.</p>
      ) : same ? null : (
        <Card title="From the model in use to this one">
          <Suspense fallback={<Skeleton />}>
            <SideBySide before={current.text} after={document.text} />
          </Suspense>
        </Card>
      )}
    </Drawer>
  );
}
