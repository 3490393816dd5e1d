package query

import (
	"encoding/json"
	"fmt"
	"strings"
)

// The functions that the SQLite store registers on its connections.
const (
	// SQLiteLike is a function of a text and a [Pattern]: [Pattern.Match].
	SQLiteLike = "headgate_like"
	// SQLiteJSON is a function of a JSON text and the JSON of a [JSONTest]: [JSONTest.Match].
	SQLiteJSON = "headgate_json"
)

// SQLite is SQLite's dialect.
var SQLite = Dialect{
	Placeholder:   func(int, any) string { return "?" },
	NullSafeEqual: "IS",
	Contains:      "instr(%s, %s) > 0",
	Like:          SQLiteLike + "(%s, %s)",
	JSON: func(column string, test JSONTest, bind func(any) string) string {
		text, err := json.Marshal(test)
		if err != nil {
			panic(err) // its members are texts and finite numbers
		}
		return SQLiteJSON + "(" + column + ", " + bind(string(text)) + ")"
	},
}

// PostgreSQL is PostgreSQL's dialect. A parameter says its type, since the
// database would otherwise take that of the column that it is compared with.
var PostgreSQL = Dialect{
	Placeholder: func(n int, value any) string {
		kind := ""
		switch value.(type) {
		case string:
			kind = "::text"
		case int64:
			kind = "::bigint"
		case float64:
			kind = "::double precision"
		case bool:
			kind = "::boolean"
		}
		return fmt.Sprintf("$%d%s", n, kind)
	},
	NullSafeEqual: "IS NOT DISTINCT FROM",
	Contains:      "strpos(%s, %s) > 0",
	Like:          "(%s LIKE %s)",
	JSON:          postgresJSON,
	NullsFirst:    " NULLS FIRST",
	NullsLast:     " NULLS LAST",
}

// postgresJSON implements [Dialect.JSON]. The column's text may have \u0000, which jsonb cannot:
// it is replaced by what the store writes for that character elsewhere.
func postgresJSON(column string, test JSONTest, bind func(any) string) string {
	document := fmt.Sprintf(`(CASE WHEN strpos(%[1]s, '\u0000') > 0 THEN regexp_replace(%[1]s, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffe0', 'g') ELSE %[1]s END)::jsonb`, column)
	mode, path := "strict $", ""
	if test.Has {
		mode = "lax $" // members of an array's elements too
	}
	for _, member := range test.Path {
		path += `."` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(member) + `"`
	}
	if test.Has && test.Kind != KindPresent {
		path += "[*]" // an array's elements, or the value itself
	}
	return fmt.Sprintf("EXISTS (SELECT FROM jsonb_path_query(%s, (%s)::jsonpath, '{}', true) AS found(v) WHERE %s)",
		document, bind(mode+path), postgresValue(test, bind))
}

// postgresValue returns the condition of a value v.
func postgresValue(test JSONTest, bind func(any) string) string {
	const text = `(v #>> '{}') COLLATE "C"`
	switch test.Kind {
	case KindPresent:
		return "jsonb_typeof(v) <> 'null'"
	case KindBool:
		return "v = to_jsonb(" + bind(test.Bool) + ")"
	case KindNumber:
		return fmt.Sprintf("CASE WHEN jsonb_typeof(v) = 'number' THEN (v #>> '{}')::numeric %s (%s)::numeric ELSE false END", test.Operator, bind(test.Text))
	case KindPattern:
		return fmt.Sprintf("jsonb_typeof(v) = 'string' AND %s LIKE %s", text, bind(test.Text))
	}
	argument := bind(test.Text)
	if test.Has {
		return fmt.Sprintf("CASE jsonb_typeof(v) WHEN 'string' THEN strpos(%s, %s) > 0 WHEN 'object' THEN jsonb_exists(v, %s) ELSE false END", text, argument, argument)
	}
	return fmt.Sprintf("jsonb_typeof(v) = 'string' AND %s %s %s", text, test.Operator, argument)
}
