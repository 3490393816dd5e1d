/** What the explorer reads of an OpenAPI 3.1 document. */
export interface Operation {
  verb: string;
  path: string;
  summary: string;
  parameters: string[];
  hasBody: boolean;
}

interface Document {
  paths?: Record<string, Record<string, { summary?: string; description?: string; operationId?: string; requestBody?: unknown; parameters?: { name: string; in: string }[] }>>;
}

export function operations(document: Document): Operation[] {
  return Object.entries(document.paths ?? {}).flatMap(([path, verbs]) =>
    Object.entries(verbs).map(([verb, operation]) => ({
      verb: verb.toUpperCase(),
      path,
      summary: operation.summary ?? operation.description ?? operation.operationId ?? "",
      parameters: [...path.matchAll(/\{([^}=]+)[^}]*\}/g)].map((match) => match[1] ?? ""),
      hasBody: operation.requestBody !== undefined,
    })),
  );
}

/** The path with its parameters filled in. */
export function filled(path: string, values: Record<string, string>): string {
  return path.replaceAll(/\{([^}=]+)[^}]*\}/g, (_, name: string) => encodeURIComponent(values[name] ?? ""));
}
