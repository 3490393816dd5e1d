/** The mark: a gate between two channels. */
export function Logo() {
  return (
    <svg viewBox="0 0 24 24" className="size-6 shrink-0" fill="none" strokeLinecap="round" aria-hidden="true">
      <path d="M2 6h6M2 18h6M16 6h6M16 18h6" stroke="var(--muted)" strokeWidth="2" />
      <path d="M9 3v18M15 3v18" stroke="var(--accent)" strokeWidth="2.5" />
      <path d="M9 12h6" stroke="var(--series-1)" strokeWidth="2.5" />
    </svg>
  );
}
