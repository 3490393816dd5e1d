import { useMutation, useQuery } from "@connectrpc/connect-query";
import { useState } from "react";
import { ModelService, type ModelDocument } from "../gen/control/v1/model_pb";
import { instant } from "../app/format";
import { useRefusal } from "../app/session";
import { Button, Confirm } from "../parts/action";
import { Text } from "../parts/field";
import { Page } from "../parts/page";
import { Answered, Empty, Problem } from "../parts/state";
import { Table } from "../parts/table";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";
import { toast } from "../parts/toast";

export function Models() {
  const model = useQuery(ModelService.method.getModel, {});
  const history = useQuery(ModelService.method.listModels, {});
  const [from, setFrom] = useState<ModelDocument>();
  const start = from ?? model.data?.document;
  const used = model.data?.document;
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
    >
      <Answered of={model}>
        {(data) =>
          data.document && start ? <Editor key={start.revision + data.document.revision} text={start.text} current={data.document} onApplied={() => { setFrom(undefined); void model.refetch(); void history.refetch(); }} /> : <Empty title="There is no model." />
        }
      </Answered>
      <section aria-label="History" className="flex flex-col gap-2">
        <h2>History</h2>
        <Answered of={history}>
          {(data) => (
            <Table
              label="Applied models"
              rows={data.documents}
              id={(one) => one.revision + instant(one.applied)}
              onSelect={setFrom}
              empty={<Empty title="No model has been applied.">The model in use is the one that the nodes started with. Change the document above, check it, and apply it.</Empty>}
              columns={[
                { name: "Revision", width: 200, value: (one) => one.revision },
                { name: "Applied", width: timeWidth, value: (one) => instant(one.applied), cell: (one) => <Time of={one.applied} /> },
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

function Editor({ text: start, current, onApplied }: { text: string; current: ModelDocument; onApplied: () => void }) {
  const [text, setText] = useState(start);
  const [note, setNote] = useState("");
  const refusal = useRefusal("fleet.admin");
  const check = useMutation(ModelService.method.checkModel);
  const apply = useMutation(ModelService.method.applyModel);
  const checked = check.data && check.variables?.text === text ? check.data : undefined;
  return (
    <div className="grid gap-4 xl:grid-cols-2">
      <label className="flex flex-col gap-1">
        <span className="text-muted">Document (YAML)</span>
        <textarea className="field h-96 font-mono text-xs whitespace-pre" spellCheck={false} value={text} onChange={(event) => setText(event.target.value)} />
      </label>
      <div className="flex flex-col gap-2">
        <div className="flex flex-wrap items-end gap-2">
          <Button strong disabled={check.isPending} onClick={() => check.mutate({ text })}>
            Check
          </Button>
          <Text label="Note" value={note} onChange={setNote} />
          <Confirm
            title="Apply"
            name={current.revision}
            refusal={refusal}
            disabled={!checked || checked.mistakes.length > 0 || checked.diff === ""}
            what={`All nodes use the new model instead of ${current.revision}. Changed views are rebuilt while the current ones stay available.`}
            run={async () => {
              await apply.mutateAsync({ text, expectedRevision: current.revision, note });
              onApplied();
              toast("The model is applied.");
            }}
          >
            Apply…
          </Confirm>
        </div>
        {check.error ? <Problem error={check.error} /> : null}
        {checked ? (
          checked.mistakes.length > 0 ? (
            <ul role="alert" className="text-bad">
              {checked.mistakes.map((mistake) => (
                <li key={mistake.line + mistake.message}>
                  Line {mistake.line}: {mistake.message}
                </li>
              ))}
            </ul>
          ) : (
            <>
              <p role="status">{checked.diff === "" ? "It is the model in use." : `No mistakes. Views to rebuild: ${checked.rebuiltViews.join(", ") || "none"}.`}</p>
              {checked.diff === "" ? null : <Diff text={checked.diff} />}
            </>
          )
        ) : (
          <p className="text-muted">Check the document first: it shows mistakes with their lines, and what would change.</p>
        )}
      </div>
    </div>
  );
}

function Diff({ text }: { text: string }) {
  return (
    // What scrolls can be reached by the keyboard.
    <pre className="panel max-h-80 overflow-auto" tabIndex={0} role="region" aria-label="Differences">
      {text.split("\n").map((line, n) => (
        <span key={n} className={line.startsWith("+") ? "text-ok" : line.startsWith("-") ? "text-bad" : "text-muted"}>
          {line}
          {"\n"}
        </span>
      ))}
    </pre>
  );
}
