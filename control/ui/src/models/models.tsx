import { useMutation, useQuery } from "@connectrpc/connect-query";
import { useState } from "react";
import { ModelService, type ModelDocument } from "../gen/control/v1/model_pb";
import { time } from "../app/format";
import { useRefusal } from "../app/session";
import { Button, Dangerous } from "../parts/action";
import { Text } from "../parts/field";
import { Answered, Badge, Problem } from "../parts/state";
import { Table } from "../parts/table";

export function Models() {
  const model = useQuery(ModelService.method.getModel, {});
  const history = useQuery(ModelService.method.listModels, {});
  const [from, setFrom] = useState<ModelDocument>();
  const start = from ?? model.data?.document;
  return (
    <div className="flex flex-col gap-4">
      <h1>Models</h1>
      <Answered of={model}>
        {(data) => (
          <>
            <p>
              In use: <Badge tone="ok">{data.document?.revision}</Badge> {data.document?.by ? `applied by ${data.document.by}, ${time(data.document.applied)}` : "as the program or its file has it"}
            </p>
            {data.document && start ? <Editor key={start.revision + data.document.revision} text={start.text} current={data.document} onApplied={() => { setFrom(undefined); void model.refetch(); void history.refetch(); }} /> : null}
          </>
        )}
      </Answered>
      <section aria-label="History">
        <h2>Applied before</h2>
        <Answered of={history}>
          {(data) => (
            <Table
              label="Models that were applied"
              rows={data.documents}
              id={(one) => one.revision + time(one.applied)}
              onSelect={setFrom}
              empty="None has been applied: the model is the one that nodes start with."
              columns={[
                { name: "Revision", cell: (one) => one.revision },
                { name: "Applied", cell: (one) => time(one.applied) },
                { name: "By", cell: (one) => one.by },
                { name: "What for", cell: (one) => one.note },
              ]}
            />
          )}
        </Answered>
      </section>
    </div>
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
          <Text label="What for" value={note} onChange={setNote} />
          <Dangerous
            title="Apply"
            name={current.revision}
            refusal={refusal}
            disabled={!checked || checked.mistakes.length > 0 || checked.diff === ""}
            what={`All nodes use the new model in the place of ${current.revision}. Views are built anew beside those that are shown.`}
            run={async () => {
              await apply.mutateAsync({ text, expectedRevision: current.revision, note });
              onApplied();
            }}
          >
            Apply…
          </Dangerous>
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
              <p role="status">{checked.diff === "" ? "It is the model in use." : `No mistake. Views that are built anew: ${checked.rebuiltViews.join(", ") || "none"}.`}</p>
              {checked.diff === "" ? null : <Diff text={checked.diff} />}
            </>
          )
        ) : (
          <p className="text-muted">Check first: mistakes are named with their lines, and differences are shown.</p>
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
