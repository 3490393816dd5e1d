/** Pixels of a column of times, which are never cut off: a moment to the millisecond, and the cell's padding. */
export const timeWidth = 216;
