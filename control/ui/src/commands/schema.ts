import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

/** A field of a form, read from a JSON Schema. */
export interface Field {
  name: string;
  kind: "string" | "integer" | "number" | "boolean" | "choice" | "json";
  required: boolean;
  description: string;
  options: string[];
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The fields of a payload's schema, in its order; what a form cannot ask for is asked for as JSON. */
export function fields(schema: JsonObject | undefined): Field[] {
  const properties = schema?.["properties"];
  const required = schema?.["required"];
  if (!isObject(properties)) return [];
  return Object.entries(properties).map(([name, property]) => {
    const of = isObject(property) ? property : {};
    const options = Array.isArray(of["enum"]) ? of["enum"].filter((one) => typeof one === "string") : [];
    const type = of["type"];
    const simple = type === "string" || type === "integer" || type === "number" || type === "boolean";
    return {
      name,
      kind: options.length > 0 ? "choice" : simple ? type : "json",
      required: Array.isArray(required) && required.includes(name),
      description: typeof of["description"] === "string" ? of["description"] : "",
      options,
    };
  });
}

/** The payload that a form's texts mean; an error names the field that cannot be read. */
export function payload(form: Field[], texts: Record<string, string>): JsonObject {
  const out: JsonObject = {};
  for (const field of form) {
    const text = texts[field.name] ?? "";
    if (text === "" && !(field.kind === "string" && field.required)) continue;
    switch (field.kind) {
      case "integer":
      case "number": {
        const value = Number(text);
        if (!Number.isFinite(value) || (field.kind === "integer" && !Number.isInteger(value))) throw new Error(`${field.name}: ${text} is no ${field.kind}`);
        out[field.name] = value;
        break;
      }
      case "boolean":
        out[field.name] = text === "true";
        break;
      case "json":
        try {
          out[field.name] = JSON.parse(text) as JsonValue;
        } catch {
          throw new Error(`${field.name}: this is no JSON`);
        }
        break;
      default:
        out[field.name] = text;
    }
  }
  return out;
}
