import { Code as GrpcCode, ConnectError, createClient } from "@connectrpc/connect";
import { useQuery, useTransport } from "@connectrpc/connect-query";
import { useMutation } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { CommandService, type SubmitRequestSchema, type SubmitResponse } from "../gen/aggregate/gateway/v1/command_pb";
import { ModelService, type GetModelResponse } from "../gen/control/v1/model_pb";
import { uuid } from "../app/random";
import { useRefusal, useWhoAmI } from "../app/session";
import { useUrl } from "../app/url";
import { Button } from "../parts/action";
import { Copy } from "../parts/copy";
import { Choice, Text } from "../parts/field";
import { Code, Page } from "../parts/page";
import { Answered, Badge, Empty, Problem } from "../parts/state";
import { useTenant } from "../parts/tenant";
import { Time } from "../parts/time";
import { Recent, SaveTemplate, useStored } from "./recent";
import { fields, payload, type Field } from "./schema";
import type { Entry } from "./stored";

export function Commands() {
  const model = useQuery(ModelService.method.getModel, {});
  return (
    <Page title="Commands" tenant summary="Submit a command to an aggregate, or try it without effect.">
      <Answered of={model}>{(data) => <Console model={data} />}</Answered>
    </Page>
  );
}

function Console({ model }: { model: GetModelResponse }) {
  const tenant = useTenant();
  const [get, set] = useUrl();
  const aggregate = model.aggregates.find((one) => one.name === get("type")) ?? model.aggregates[0];
  const command = aggregate?.commands.find((one) => one.name === get("command")) ?? aggregate?.commands[0];
  const subject = useWhoAmI().data?.subject ?? "";
  const { stored, add, put } = useStored(subject);
  const [filled, setFilled] = useState<{ texts: Record<string, string>; n: number }>({ texts: {}, n: 0 });
  const choose = (next: Record<string, string>) => {
    setFilled({ texts: {}, n: filled.n + 1 });
    set(next);
  };
  if (!aggregate || !command) return <Empty title="The model has no command.">Add one to the model on the screen Models.</Empty>;
  return (
    <>
      <div className="flex flex-wrap items-end gap-4">
        <Choice label="Aggregate" value={aggregate.name} options={model.aggregates.map((one) => one.name)} onChange={(type) => choose({ type, command: "" })} />
        <Choice label="Command" value={command.name} options={aggregate.commands.map((one) => one.name)} onChange={(next) => choose({ command: next })} />
      </div>
      <Form key={`${aggregate.name} ${command.name} ${filled.n}`} tenant={tenant} type={aggregate.name} command={command.name} form={fields(command.schema)} initial={filled.texts} templates={stored.templates.length} onStore={add} />
      <Recent
        stored={stored}
        put={put}
        onFill={(entry) => {
          set({ type: entry.type, command: entry.command, id: entry.id });
          setFilled({ texts: entry.texts, n: filled.n + 1 });
        }}
      />
    </>
  );
}

interface FormProps {
  tenant: string;
  type: string;
  command: string;
  form: Field[];
  initial: Record<string, string>;
  templates: number;
  onStore: (entry: Entry) => void;
}

function Form({ tenant, type, command, form, initial, templates, onStore }: FormProps) {
  const [get, set] = useUrl();
  const [texts, setTexts] = useState<Record<string, string>>(initial);
  const [key, setKey] = useState<string>(() => uuid());
  const [wrong, setWrong] = useState("");
  const refusal = useRefusal("command.submit", "tenant");
  const transport = useTransport();
  // The console names the correlation id, by which everything that the command causes is found.
  const submit = useMutation({ mutationFn: ({ correlation, ...request }: MessageInitShape<typeof SubmitRequestSchema> & { correlation: string }) => createClient(CommandService, transport).submit(request, { headers: { "x-correlation-id": correlation } }) });
  const [answered, setAnswered] = useState<{ dryRun: boolean; response: SubmitResponse; usedKey: string; correlation: string }>();
  const id = get("id");
  const store = (name: string, outcome: string, correlation?: string) => onStore({ type, command, id, texts, at: Date.now(), name, outcome, ...(correlation === undefined ? {} : { correlation, tenant }) });
  const go = (dryRun: boolean) => {
    setWrong("");
    setAnswered(undefined);
    const correlation = uuid();
    try {
      submit.mutate(
        { correlation, tenantId: tenant, aggregateType: type, aggregateId: id, command, payload: payload(form, texts), idempotencyKey: dryRun ? "" : key, dryRun },
        {
          onSuccess: (response) => {
            setAnswered({ dryRun, response, usedKey: dryRun ? "" : key, correlation });
            // The next submission is another command. After an error the key stays: the command may have been done.
            if (dryRun) return;
            setKey(uuid());
            store("", "done", correlation);
          },
          onError: (err) => {
            if (!dryRun) store("", GrpcCode[ConnectError.from(err).code], correlation);
          },
        },
      );
    } catch (err) {
      setWrong(err instanceof Error ? err.message : String(err));
    }
  };
  return (
    <>
      <form
        className="panel flex flex-col gap-3"
        onSubmit={(event) => {
          event.preventDefault();
          go(false);
        }}
      >
        <div className="flex flex-wrap gap-4">
          <Text label={`${type} id`} value={id} onChange={(next) => set({ id: next }, { replace: true })} placeholder="ada" />
          {form.map((field) => (
            <Input key={field.name} field={field} value={texts[field.name] ?? ""} onChange={(next) => setTexts((before) => ({ ...before, [field.name]: next }))} />
          ))}
        </div>
        {form.length === 0 ? <p className="text-muted">The command takes no payload.</p> : null}
        <div className="flex flex-wrap items-end gap-2">
          <Text label="Idempotency key" value={key} onChange={setKey} wide />
          <Button onClick={() => setKey(uuid())}>New key</Button>
        </div>
        <div className="flex flex-wrap gap-2">
          <Button type="submit" strong refusal={refusal} disabled={id === "" || tenant === "" || submit.isPending}>
            Submit
          </Button>
          <Button refusal={refusal} disabled={id === "" || tenant === "" || submit.isPending} onClick={() => go(true)}>
            Dry run
          </Button>
          <SaveTemplate templates={templates} onSave={(name) => store(name, "")} />
        </div>
        {wrong ? <p role="alert" className="text-bad">{wrong}</p> : null}
      </form>
      {submit.error ? <Problem error={submit.error} /> : null}
      {answered ? <Answer {...answered} tenant={tenant} type={type} id={id} /> : null}
    </>
  );
}

function Input({ field, value, onChange }: { field: Field; value: string; onChange: (value: string) => void }) {
  const label = field.required ? field.name : `${field.name} (optional)`;
  if (field.kind === "choice" || field.kind === "boolean") {
    const options = field.kind === "boolean" ? ["true", "false"] : field.options;
    return <Choice label={label} value={value} options={["", ...options]} onChange={onChange} />;
  }
  return <Text label={field.kind === "json" ? `${label}, JSON` : label} value={value} onChange={onChange} placeholder={field.description || field.kind} />;
}

function Answer({ dryRun, response, usedKey, correlation, tenant, type, id }: { dryRun: boolean; response: SubmitResponse; usedKey: string; correlation: string; tenant: string; type: string; id: string }) {
  return (
    <section className="panel flex flex-col gap-2" aria-label="Answer">
      <p role="status" className="flex flex-wrap items-center gap-2">
        {dryRun ? <Badge tone="info">dry run: nothing was written</Badge> : response.replayed ? <Badge tone="warn">answered before: the key was used</Badge> : <Badge tone="ok">done</Badge>} version {String(response.version)}
        {usedKey === "" ? null : (
          <span className="text-muted">
            key <code>{usedKey}</code>
          </span>
        )}
      </p>
      {response.events.map((event) => (
        <article key={event.id}>
          <p>
            <strong>{event.type}</strong> <span className="text-muted"><Time of={event.time} /></span>
            {dryRun ? "" : ` ${event.id}`}
          </p>
          <Code label={`Data of ${event.type}`}>{JSON.stringify(event.data, null, 2)}</Code>
        </article>
      ))}
      {response.events.length === 0 ? <p>The command has no event.</p> : null}
      {response.position ? (
        <p className="flex items-center gap-2">
          <span className="text-muted">Position</span> <code className="min-w-0 truncate" title={response.position}>{response.position}</code> <Copy text={response.position} label="Copy the position" />
        </p>
      ) : null}
      {dryRun ? null : (
        <p className="flex flex-wrap gap-x-4 gap-y-1" role="group" aria-label="What it has caused">
          {response.replayed ? null : (
            <Link to="/timeline" search={{ tenant, id: correlation }}>
              Timeline
            </Link>
          )}
          {response.events[0] ? (
            <Link to="/workflows" search={{ tenant, q: response.events[0].id }}>
              Workflow instances
            </Link>
          ) : null}
          <Link to="/aggregates" search={{ tenant, type, id }}>
            History of {type}/{id}
          </Link>
          <Link to="/views" search={{ tenant }}>
            Views of {tenant}
          </Link>
        </p>
      )}
    </section>
  );
}
