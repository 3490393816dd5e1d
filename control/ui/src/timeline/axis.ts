/** A piece of the axis: time in which something happened, or an idle gap that is folded. */
export interface Piece {
  from: number;
  to: number;
  /** Percent of the width. */
  left: number;
  width: number;
  idle: boolean;
}

export interface Tick {
  left: number;
  /** Milliseconds after the begin. */
  after: number;
  /** Milliseconds after the folded gap before it; undefined before the first, and at the end of one. */
  sinceGap: number | undefined;
}

export interface Axis {
  from: number;
  to: number;
  pieces: Piece[];
  ticks: Tick[];
  /** Where a moment is, in percent. */
  at: (moment: number) => number;
}

/** Percent that a folded gap takes, and all of them together. */
const fold = 7;
const folds = 40;
/** A gap is folded if it is longer than this, and than this part of the time in which something happened. */
const shortest = 5;
const part = 0.15;
/** Percent between two marks. */
const apart = 10;

/** Lays out the time from the first interval's start to the last one's end, with long idle gaps folded. */
export function axis(intervals: readonly { from: number; to: number }[]): Axis {
  const from = Math.min(...intervals.map((one) => one.from));
  const to = Math.max(...intervals.map((one) => one.to), from + 0.001);
  const busy: { from: number; to: number }[] = [];
  for (const one of [...intervals].sort((a, b) => a.from - b.from)) {
    const last = busy.at(-1);
    if (last && one.from <= last.to) last.to = Math.max(last.to, one.to);
    else busy.push({ from: one.from, to: one.to });
  }
  const work = busy.reduce((sum, one) => sum + one.to - one.from, 0);
  const long = Math.max(shortest, work * part);
  const raw: { from: number; to: number; idle: boolean }[] = [];
  for (const one of busy) {
    const last = raw.at(-1);
    if (last && one.from - last.to > long) {
      raw.push({ from: last.to, to: one.from, idle: true }, { ...one, idle: false });
    } else if (last) last.to = one.to;
    else raw.push({ ...one, idle: false });
  }
  const gaps = raw.filter((piece) => piece.idle).length;
  const gap = gaps > 0 ? Math.min(fold, folds / gaps) : 0;
  const shown = raw.reduce((sum, piece) => sum + (piece.idle ? 0 : piece.to - piece.from), 0);
  const rest = 100 - gap * gaps;
  let left = 0;
  const pieces = raw.map((piece): Piece => {
    const width = piece.idle ? gap : shown > 0 ? ((piece.to - piece.from) / shown) * rest : rest / (raw.length - gaps);
    const laid = { ...piece, left, width };
    left += width;
    return laid;
  });
  const at = (moment: number) => {
    const piece = pieces.find((one) => moment <= one.to) ?? pieces.at(-1);
    if (!piece || piece.to === piece.from) return piece?.left ?? 0;
    return piece.left + (Math.min(Math.max(moment - piece.from, 0), piece.to - piece.from) / (piece.to - piece.from)) * piece.width;
  };
  return { from, to, pieces, at, ticks: ticks(pieces, from, shown, rest) };
}

/** Marks at round milliseconds, in the pieces in which something happened. */
function ticks(pieces: Piece[], from: number, shown: number, rest: number): Tick[] {
  const wanted = (shown * apart) / rest;
  const power = 10 ** Math.floor(Math.log10(wanted || 1));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= wanted) ?? power * 10;
  const out: (Tick & { begins: boolean })[] = [];
  for (const piece of pieces) {
    if (piece.idle) continue;
    const place = (after: number) => piece.left + (piece.to > piece.from ? ((after + from - piece.from) / (piece.to - piece.from)) * piece.width : 0);
    const put = (after: number, begins: boolean) => {
      const left = place(after);
      if (left > 100 - apart) return;
      // A mark of what begins after a gap replaces one before the gap.
      while (begins && out.length > 0 && !out.at(-1)?.begins && left - (out.at(-1)?.left ?? 0) < apart) out.pop();
      const before = out.at(-1);
      if (!before || left - before.left >= apart) out.push({ left, after, begins, sinceGap: begins || piece === pieces[0] ? undefined : after + from - piece.from });
    };
    put(piece.from - from, true);
    for (let after = piece.from - from + step; after <= piece.to - from; after += step) put(after, false);
  }
  return out.map(({ left, after, sinceGap }) => ({ left, after, sinceGap }));
}
