import { cleanup, fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, describe, expect, it, vi } from "vitest";
import { csv, json } from "./export";
import { Table, type Column } from "./table";

afterEach(cleanup);

interface Row {
  name: string;
  calls: number | undefined;
}

const columns: Column<Row>[] = [
  { name: "Name", value: (row) => row.name },
  { name: "Calls", number: true, value: (row) => row.calls },
];
const rows: Row[] = [
  { name: "node-10", calls: 3 },
  { name: "node-2", calls: undefined },
  { name: "node-1", calls: 20 },
];
const names = () => screen.getAllByRole("row").slice(1).map((row) => within(row).getAllByRole("cell")[0]?.textContent);

describe("a table", () => {
  it("sorts by value, numbers in names as numbers, and puts what is unknown last", async () => {
    const user = userEvent.setup();
    render(<Table label="Nodes" columns={columns} rows={rows} id={(row) => row.name} empty="none" />);
    expect(names()).toEqual(["node-10", "node-2", "node-1"]);
    await user.click(screen.getByRole("button", { name: "Name" }));
    expect(names()).toEqual(["node-1", "node-2", "node-10"]);
    expect(screen.getByRole("columnheader", { name: "Name" }).getAttribute("aria-sort")).toBe("ascending");
    await user.click(screen.getByRole("button", { name: "Calls" }));
    expect(names()).toEqual(["node-1", "node-10", "node-2"]);
  });

  it("has the whole text of a cell that is cut off", () => {
    const long = "x".repeat(400);
    render(<Table label="Nodes" columns={columns} rows={[{ name: long, calls: 1 }]} id={(row) => row.name} empty="none" />);
    expect(screen.getByTitle(long).className).toContain("truncate");
  });

  it("chooses and marks rows", async () => {
    const user = userEvent.setup();
    const select = vi.fn();
    const mark = vi.fn();
    render(<Table label="Nodes" columns={columns} rows={rows} id={(row) => row.name} empty="none" selected="node-2" onSelect={select} marked={new Set(["node-1"])} onMark={mark} />);
    expect(screen.getByRole("button", { name: "node-2" }).getAttribute("aria-pressed")).toBe("true");
    await user.click(screen.getByRole("button", { name: "node-1" }));
    expect(select).toHaveBeenCalledWith(rows[2]);
    await user.click(screen.getByRole("checkbox", { name: "Mark node-2" }));
    expect(mark).toHaveBeenCalledWith(new Set(["node-1", "node-2"]));
    await user.click(screen.getByRole("checkbox", { name: "Mark all rows" }));
    expect(mark).toHaveBeenLastCalledWith(new Set(["node-10", "node-2", "node-1"]));
  });

  it("hides a column", async () => {
    const user = userEvent.setup();
    render(<Table label="Nodes" columns={columns} rows={rows} id={(row) => row.name} empty="none" />);
    await user.click(await screen.findByRole("button", { name: "Columns of Nodes" }));
    await user.click(screen.getByRole("menuitemcheckbox", { name: /Calls/ }));
    await user.keyboard("{Escape}");
    expect(screen.queryByRole("columnheader", { name: "Calls" })).toBeNull();
  });

  it("goes through the rows by j and k, and exports what it shows by e", async () => {
    const user = userEvent.setup();
    const saved: Blob[] = [];
    // What jsdom does not have.
    URL.createObjectURL = (blob) => `blob:${saved.push(blob as Blob)}`;
    URL.revokeObjectURL = () => undefined;
    vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(() => undefined);
    Element.prototype.scrollIntoView = () => undefined;
    render(<Table label="Nodes" columns={columns} rows={rows} id={(row) => row.name} empty="none" onSelect={() => undefined} />);
    await user.click(screen.getByRole("button", { name: "Name" }));
    screen.getByRole("region", { name: "Nodes" }).focus();
    await user.keyboard("jj");
    expect(document.activeElement?.textContent).toBe("node-2");
    await user.keyboard("kkk");
    expect(document.activeElement?.textContent).toBe("node-1");
    await user.keyboard("e");
    const text = new FileReader();
    text.readAsText(saved[0] as Blob);
    await waitFor(() => expect(text.result).toBe("Name,Calls\r\nnode-1,20\r\nnode-2,\r\nnode-10,3\r\n"));
    vi.restoreAllMocks();
  });

  it("highlights a cell each time that it changes", () => {
    const at = (calls: number, changes: number) => <Table label="Nodes" columns={columns} rows={[{ name: "node-1", calls }]} id={(row) => row.name} empty="none" changes={(_, column) => (column === "Calls" ? changes : 0)} />;
    const { rerender } = render(at(1, 0));
    expect(screen.getByRole("cell", { name: "1" }).className).not.toContain("flash");
    rerender(at(2, 1));
    const once = screen.getByRole("cell", { name: "2" });
    expect(once.className).toContain("flash");
    rerender(at(3, 2));
    // Another element, so that the highlight begins again.
    expect(screen.getByRole("cell", { name: "3" })).not.toBe(once);
    expect(screen.getByRole("cell", { name: "node-1" }).className).not.toContain("flash");
  });

  it("changes a column's width by its edge, and a double click undoes it", () => {
    const { container } = render(<Table label="Nodes" columns={columns} rows={rows} id={(row) => row.name} empty="none" />);
    const widths = () => [...container.querySelectorAll("col")].map((col) => col.style.width);
    const edge = screen.getByRole("columnheader", { name: "Name" }).querySelector(".cursor-col-resize") as Element;
    expect(widths()).toEqual(["140px", "140px"]);
    fireEvent.mouseDown(edge, { clientX: 100 });
    fireEvent.mouseMove(document, { clientX: 160 });
    fireEvent.mouseUp(document, { clientX: 160 });
    expect(widths()).toEqual(["200px", "140px"]);
    fireEvent.doubleClick(edge);
    expect(widths()).toEqual(["140px", "140px"]);
  });

  it("has only the rows in sight in the document, of ten thousand", async () => {
    // jsdom lays nothing out: the scroller is as high as sixteen rows.
    vi.spyOn(Element.prototype, "clientHeight", "get").mockReturnValue(576);
    vi.spyOn(Element.prototype, "clientWidth", "get").mockReturnValue(800);
    const many = Array.from({ length: 10_000 }, (_, n) => ({ name: `node-${n}`, calls: n }));
    const { container } = render(<Table label="Nodes" columns={columns} rows={many} id={(row) => row.name} empty="none" />);
    const inDocument = () => [...container.querySelectorAll("tbody tr:not([aria-hidden])")].map((row) => row.querySelector("td")?.textContent);
    expect(container.querySelector("table")?.getAttribute("aria-rowcount")).toBe("10001");
    expect(inDocument().slice(0, 16)).toEqual(many.slice(0, 16).map((row) => row.name));
    expect(inDocument().length).toBeLessThan(60);
    const scroller = screen.getByRole("region", { name: "Nodes" });
    scroller.scrollTop = 5_000 * 36;
    fireEvent.scroll(scroller);
    await waitFor(() => expect(inDocument()).toContain("node-5000"));
    expect(inDocument()).not.toContain("node-0");
    expect(inDocument().length).toBeLessThan(60);
    vi.restoreAllMocks();
  });

  it("shows why it is empty", () => {
    render(<Table label="Nodes" columns={columns} rows={[]} id={(row) => row.name} empty="No node has announced itself." />);
    expect(screen.getByText("No node has announced itself.")).toBeTruthy();
  });
});

describe("an exported table", () => {
  const exported = [
    { name: "Name", value: (row: Row) => row.name },
    { name: "Calls", value: (row: Row) => row.calls },
  ];

  it("quotes as RFC 4180 does, and no spreadsheet runs a text", () => {
    expect(csv(exported, [{ name: 'a "b", c', calls: -1 }, { name: "=1+1", calls: undefined }])).toBe('Name,Calls\r\n"a ""b"", c",-1\r\n\'=1+1,\r\n');
  });

  it("is JSON with the columns' names, integers of 64 bits as texts", () => {
    expect(JSON.parse(json([{ name: "No.", value: () => 9007199254740993n }], [rows[0]]))).toEqual([{ "No.": "9007199254740993" }]);
  });
});
