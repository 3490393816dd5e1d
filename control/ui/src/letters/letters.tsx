import { useInfiniteQuery, useMutation } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { RunnerAdmin, WorkflowState, type DeadLetter } from "../gen/runner/admin/v1/admin_pb";
import { instant, number, since } from "../app/format";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Button, Confirm } from "../parts/action";
import { Id } from "../parts/copy";
import { FilterBox, matches } from "../parts/field";
import { Code, Drawer, Facts, Page } from "../parts/page";
import { Answered, Empty } from "../parts/state";
import { Table } from "../parts/table";
import { useTenant } from "../parts/tenant";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";
import { toast } from "../parts/toast";
import { all } from "../workflows/counts";
import { causes, general } from "./causes";

const pageSize = 500;

export function Letters() {
  const tenant = useTenant();
  const [get, set] = useUrl();
  const listed = useInfiniteQuery(RunnerAdmin.method.listDeadLetters, { tenantId: tenant, pageSize, pageToken: "" }, { pageParamKey: "pageToken", getNextPageParam: (last) => last.nextPageToken || undefined, enabled: tenant !== "", refetchInterval: 5_000 });
  const letters = listed.data?.pages.flatMap((page) => page.letters) ?? [];
  const open = letters.find((letter) => String(letter.id) === get("open"));
  const more = listed.hasNextPage;
  return (
    <Page
      title="Dead letters"
      tenant
      summary={listed.data ? (letters.length === 0 ? `All work of ${tenant} could be done` : `${number(letters.length)}${more ? " and more" : ""} of ${tenant}, the oldest from ${since(letters[0]?.time)} ago`) : null}
      detail={open ? <Detail key={String(open.id)} tenant={tenant} letter={open} reload={() => listed.refetch()} onClose={() => set({ open: "" })} /> : null}
    >
      {tenant === "" ? (
        <Empty title="There is no tenant.">Create one on the screen Tenants.</Empty>
      ) : (
        <Answered of={listed}>
          {() =>
            letters.length === 0 ? (
              <Empty title={`${tenant} has no dead letters.`}>An event appears here when the work that it asks a workflow for has failed until its attempts were exhausted. Instances that are still tried are on the screen Workflows.<OfAllTenants /></Empty>
            ) : (
              <>
                <List tenant={tenant} letters={letters} reload={() => listed.refetch()} />
                {more ? (
                  <div>
                    <Button disabled={listed.isFetching} onClick={() => void listed.fetchNextPage()}>
                      Load newer
                    </Button>
                  </div>
                ) : null}
              </>
            )
          }
        </Answered>
      )}
    </Page>
  );
}

/** Leads to the other tenants: the count of the overview is of all of them. */
function OfAllTenants() {
  const refusal = useRefusal("workflow.read");
  if (refusal !== "") return null;
  return (
    <p className="mt-2">
      <Link to="/workflows" search={{ of: all, state: String(WorkflowState.STUCK) }}>
        Stuck instances of all tenants
      </Link>
    </p>
  );
}

function List({ tenant, letters, reload }: { tenant: string; letters: DeadLetter[]; reload: () => Promise<unknown> }) {
  const [get, set] = useUrl();
  const [marked, setMarked] = useState<ReadonlySet<string>>(new Set());
  const groups = causes(letters);
  const cause = get("cause");
  const filter = get("q");
  const shown = letters.filter((letter) => (cause === "" || general(letter.cause) === cause) && matches(filter, letter.cause, letter.eventType, letter.aggregateId, letter.workflow, letter.correlationId, letter.instanceId));
  // Only what is shown is acted on: a mark under a filter does not count.
  const chosen = shown.filter((letter) => marked.has(String(letter.id)));
  const done = async () => {
    setMarked(new Set());
    await reload();
  };
  return (
    <>
      <section aria-label="Causes" className="flex flex-col gap-2">
        <h2>Causes</h2>
        <ul className="border-border bg-surface divide-border divide-y rounded-lg border">
          {groups.map((group) => (
            <li key={group.name} className={`flex flex-wrap items-center gap-3 px-3 py-2 ${cause === group.name ? "bg-accent-soft" : ""}`}>
              <span className="w-12 text-right text-lg font-semibold">{number(group.letters.length)}</span>
              <button type="button" className="min-w-[60%] flex-1 cursor-pointer text-left break-words hover:underline" aria-pressed={cause === group.name} onClick={() => set({ cause: cause === group.name ? "" : group.name, open: "" })}>
                {group.text || "No cause was recorded"}
              </button>
              <span className="text-muted text-sm">
                last {since(group.letters.at(-1)?.time)} ago
              </span>
              <Replay tenant={tenant} letters={group.letters} done={done} />
            </li>
          ))}
        </ul>
      </section>
      {chosen.length > 0 ? (
        <div role="status" className="border-accent bg-accent-soft sticky top-14 z-20 flex flex-wrap items-center gap-2 rounded-lg border px-3 py-2">
          <span className="flex-1">
            {number(chosen.length)} {chosen.length === 1 ? "letter is" : "letters are"} marked
          </span>
          <Replay tenant={tenant} letters={chosen} done={done} />
          <Discard tenant={tenant} letters={chosen} done={done} />
        </div>
      ) : null}
      <Table
        label="Dead letters"
        tools={<FilterBox label="Search letters" />}
        rows={shown}
        id={(letter) => String(letter.id)}
        selected={get("open")}
        onSelect={(letter) => set({ open: String(letter.id) })}
        marked={marked}
        onMark={setMarked}
        empty={<Empty title="No letter matches." />}
        columns={[
          { name: "No.", width: 60, value: (letter) => letter.id },
          { name: "Workflow", width: 110, value: (letter) => letter.workflow },
          { name: "Event", width: 130, value: (letter) => letter.eventType },
          { name: "Aggregate", width: 150, value: (letter) => `${letter.aggregateType}/${letter.aggregateId}` },
          { name: "Cause", width: 300, value: (letter) => letter.cause },
          { name: "Given up", width: timeWidth, value: (letter) => instant(letter.time), cell: (letter) => <Time of={letter.time} /> },
          { name: "Correlation id", hidden: true, value: (letter) => letter.correlationId },
        ]}
      />
    </>
  );
}

interface Action {
  tenant: string;
  letters: DeadLetter[];
  done: () => Promise<unknown>;
}

/** The letters of a request. */
const most = 500;

function chunks(letters: DeadLetter[]): bigint[][] {
  return Array.from({ length: Math.ceil(letters.length / most) }, (_, n) => letters.slice(n * most, (n + 1) * most).map((letter) => letter.id));
}

function count(letters: DeadLetter[]): string {
  return letters.length === 1 ? `letter ${String(letters[0]?.id)}` : `${number(letters.length)} letters`;
}

function Replay({ tenant, letters, done }: Action) {
  const refusal = useRefusal("runner.admin", "tenant");
  const replay = useMutation(RunnerAdmin.method.replayDeadLetters);
  return (
    <Confirm
      title={letters.length === 1 ? "Replay" : `Replay ${number(letters.length)}`}
      refusal={refusal}
      reason
      what={`The work of ${count(letters)} of ${tenant} is repeated, the oldest first. What succeeds is removed from the list; no step is done twice.`}
      run={async (reason) => {
        let replayed = 0;
        let failures = 0;
        let first = "";
        for (const ids of chunks(letters)) {
          const answer = await replay.mutateAsync({ tenantId: tenant, ids, reason });
          replayed += answer.replayed;
          failures += answer.failures.length;
          if (first === "") first = answer.failure;
        }
        if (failures > 0) toast(`${number(replayed)} replayed, ${number(failures)} failed again: ${first}`, "bad");
        else toast(`${number(replayed)} replayed.`);
        await done();
      }}
    >
      {letters.length === 1 ? "Replay…" : `Replay ${number(letters.length)}…`}
    </Confirm>
  );
}

function Discard({ tenant, letters, done }: Action) {
  const refusal = useRefusal("runner.admin", "tenant");
  const discard = useMutation(RunnerAdmin.method.discardDeadLetters);
  return (
    <Confirm
      title={letters.length === 1 ? "Discard" : `Discard ${number(letters.length)}`}
      refusal={refusal}
      danger
      reason
      name={tenant}
      what={`The work of ${count(letters)} of ${tenant} is given up. Instances that are stuck or failed are cancelled: nothing of them is done or undone any more. This cannot be reverted.`}
      run={async (reason) => {
        let discarded = 0;
        for (const ids of chunks(letters)) discarded += (await discard.mutateAsync({ tenantId: tenant, ids, reason })).discarded;
        toast(`${number(discarded)} discarded.`);
        await done();
      }}
    >
      {letters.length === 1 ? "Discard…" : `Discard ${number(letters.length)}…`}
    </Confirm>
  );
}

function Detail({ tenant, letter, reload, onClose }: { tenant: string; letter: DeadLetter; reload: () => Promise<unknown>; onClose: () => void }) {
  const done = async () => {
    await reload();
    onClose();
  };
  return (
    <Drawer
      title={`Dead letter ${String(letter.id)}`}
      label={`Dead letter ${String(letter.id)}`}
      badge={<span className="text-muted text-sm">given up {since(letter.time)} ago</span>}
      onClose={onClose}
      actions={
        <>
          <Replay tenant={tenant} letters={[letter]} done={done} />
          <Discard tenant={tenant} letters={[letter]} done={done} />
        </>
      }
    >
      <section className="flex flex-col gap-1">
        <h3>Cause</h3>
        <p className="break-words">{letter.cause}</p>
      </section>
      <Facts
        of={[
          ["Workflow", letter.workflow],
          ["Event", `${letter.eventType} of ${letter.aggregateType}/${letter.aggregateId}`],
          ["Event id", <code key="e" className="break-all">{letter.eventId}</code>],
          ["Given up", <Time key="t" of={letter.time} />],
          ["Correlation id", <Id key="c" text={letter.correlationId} label="correlation id" />],
        ]}
      />
      <p className="flex gap-4">
        <Link to="/timeline" search={{ tenant, id: letter.correlationId }}>
          Timeline
        </Link>
        {letter.instanceId === "" ? null : (
          <Link to="/workflows" search={{ tenant, instance: `${letter.workflow}/${letter.instanceId}` }}>
            Workflow instance
          </Link>
        )}
      </p>
      <section className="flex flex-col gap-2">
        <h3>Data of the event</h3>
        <Code label="Data of the event">{JSON.stringify(letter.data ?? {}, null, 2)}</Code>
      </section>
    </Drawer>
  );
}
