/** A field of a request's body, or a parameter of its path, query or headers. */
export interface Field {
  name: string;
  type: string;
  required: boolean;
  description: string;
}

/** What the explorer reads of an OpenAPI 3.1 document. */
export interface Operation {
  verb: string;
  path: string;
  summary: string;
  description: string;
  /** Such as "control.v1.TenantService" and "SuspendTenant"; "" if it is no method. */
  service: string;
  method: string;
  right: string;
  timeout: string;
  parameters: (Field & { in: string })[];
  body: Field[] | undefined;
}

interface Schema {
  $ref?: string;
  type?: string | string[];
  format?: string;
  description?: string;
  enum?: unknown[];
  items?: Schema;
  properties?: Record<string, Schema>;
  required?: string[];
}

interface Described {
  summary?: string;
  description?: string;
  operationId?: string;
  tags?: string[];
  requestBody?: { content?: Record<string, { schema?: Schema }> };
  parameters?: { name: string; in: string; required?: boolean; description?: string; schema?: Schema }[];
  "x-headgate-right"?: string;
  "x-headgate-timeout"?: string;
}

export interface Document {
  paths?: Record<string, Record<string, Described>>;
  components?: { schemas?: Record<string, Schema> };
}

function typeOf(schema: Schema | undefined): string {
  if (!schema) return "any";
  if (schema.$ref) return schema.$ref.split("/").at(-1) ?? "";
  if (schema.enum) return schema.enum.map(String).join(" | ");
  if (schema.items) return `list of ${typeOf(schema.items)}`;
  const type = Array.isArray(schema.type) ? schema.type.join(" or ") : (schema.type ?? "any");
  return schema.format ? `${type} (${schema.format})` : type;
}

function bodyOf(document: Document, operation: Described): Field[] | undefined {
  if (!operation.requestBody) return undefined;
  let schema = operation.requestBody.content?.["application/json"]?.schema;
  if (schema?.$ref) schema = document.components?.schemas?.[schema.$ref.split("/").at(-1) ?? ""];
  const required = schema?.required ?? [];
  return Object.entries(schema?.properties ?? {}).map(([name, property]) => ({ name, type: typeOf(property), required: required.includes(name), description: property.description ?? "" }));
}

export function operations(document: Document): Operation[] {
  return Object.entries(document.paths ?? {}).flatMap(([path, verbs]) =>
    Object.entries(verbs).map(([verb, operation]): Operation => {
      const service = operation.tags?.[0] ?? "";
      const prefix = `${service.replaceAll(".", "_")}_`;
      const id = operation.operationId ?? "";
      const described = (operation.parameters ?? []).map((one) => ({ name: one.name, in: one.in, type: typeOf(one.schema), required: one.required ?? false, description: one.description ?? "" }));
      const inPath = [...path.matchAll(/\{([^}=]+)[^}]*\}/g)].map((match) => match[1] ?? "").filter((name) => !described.some((one) => one.name === name && one.in === "path"));
      return {
        verb: verb.toUpperCase(),
        path,
        summary: operation.summary ?? operation.description ?? id,
        description: operation.description ?? "",
        service,
        method: id.startsWith(prefix) ? id.slice(prefix.length).replace(/_\d+$/, "") : "",
        right: operation["x-headgate-right"] ?? "",
        timeout: operation["x-headgate-timeout"] ?? "",
        parameters: [...inPath.map((name) => ({ name, in: "path", type: "string", required: true, description: "" })), ...described],
        body: bodyOf(document, operation),
      };
    }),
  );
}

/** The path with its parameters filled in. */
export function filled(path: string, values: Record<string, string>): string {
  return path.replaceAll(/\{([^}=]+)[^}]*\}/g, (_, name: string) => encodeURIComponent(values[name] ?? ""));
}
