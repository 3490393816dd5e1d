package query

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Functions that the SQLite store registers on its connections.
const (
	// SQLiteLike is a function of a text and a [Pattern]: [Pattern.Match].
	SQLiteLike = "headgate_like"
	// SQLiteJSON is a function of a JSON text and the JSON of a [JSONTest]: [JSONTest.Match].
	SQLiteJSON = "headgate_json"
)

// SQLite is SQLite's dialect.
var SQLite = Dialect{
	Table:         func(name string) string { return quote("view_" + name) },
	Column:        quote,
	Placeholder:   func(int, any) string { return "?" },
	NullSafeEqual: "IS",
	Not:           "(NOT ifnull(%s, 0))", // TRUE and FALSE may be columns
	Contains:      "instr(%s, %s) > 0",
	Like:          SQLiteLike + "(%s, %s)",
	JSON: func(column string, test JSONTest, bind func(any) string) string {
		text, err := json.Marshal(test)
		if err != nil {
			panic(err) // its members are strings and finite numbers
		}
		return SQLiteJSON + "(" + column + ", " + bind(string(text)) + ")"
	},
}

// PostgreSQL is PostgreSQL's dialect. Parameters state their type, since the database would otherwise assume that of
// the column that it is compared with.
var PostgreSQL = Dialect{
	Table:  func(name string) string { return quote(PostgresName("view_" + name)) },
	Column: func(name string) string { return quote(postgresColumn(name)) },
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
	Not:           "((%s) IS NOT TRUE)",
	Contains:      "strpos(%s, %s) > 0",
	Like:          "(%s LIKE %s)",
	JSON:          postgresJSON,
	NullsFirst:    " NULLS FIRST",
	NullsLast:     " NULLS LAST",
}

// quote quotes a name, which the model has validated.
func quote(name string) string { return `"` + name + `"` }

const (
	// postgresNameBytes is the length to which PostgreSQL truncates names.
	postgresNameBytes = 63
	// nameHash is the length of the hash in a name that is derived from a longer one.
	nameHash = 16
)

// PostgresName returns the name of a table, index or constraint. A name that PostgreSQL would truncate, and might
// then confuse with another, gets a hash after a dot; names of a model have no dot.
func PostgresName(name string) string {
	if len(name) <= postgresNameBytes {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:postgresNameBytes-nameHash-1] + "." + hex.EncodeToString(sum[:nameHash/2])
}

// postgresSystemColumns are columns that every table has (PostgreSQL 15, §5.5).
var postgresSystemColumns = []string{"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid", "oid"}

// postgresColumn returns a column's name, which differs from the names of system columns.
func postgresColumn(name string) string {
	if slices.Contains(postgresSystemColumns, name) {
		return name + "."
	}
	return name
}

// postgresJSON implements [Dialect.JSON]. The column's text may contain \u0000, which jsonb cannot: it is replaced by
// the store's encoding of that character.
func postgresJSON(column string, test JSONTest, bind func(any) string) string {
	document := fmt.Sprintf(
		`(CASE WHEN strpos(%[1]s, '\u0000') > 0 THEN regexp_replace(%[1]s, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffe0', 'g') ELSE %[1]s END)::jsonb`,
		column,
	)
	mode, path := "strict $", ""
	if test.Has {
		mode = "lax $" // also visits members of array elements
	}
	for _, member := range test.Path {
		path += `."` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(member) + `"`
	}
	if test.Has && test.Kind != KindPresent {
		path += "[*]" // the elements of an array, or the value itself
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
		return fmt.Sprintf(
			"CASE WHEN jsonb_typeof(v) = 'number' THEN (v #>> '{}')::numeric %s (%s)::numeric ELSE false END",
			test.Operator, bind(test.Text),
		)
	case KindPattern:
		return fmt.Sprintf("jsonb_typeof(v) = 'string' AND %s LIKE %s", text, bind(test.Text))
	}
	argument := bind(test.Text)
	if test.Has {
		return fmt.Sprintf(
			"CASE jsonb_typeof(v) WHEN 'string' THEN strpos(%s, %s) > 0 WHEN 'object' THEN jsonb_exists(v, %s) ELSE "+
				"false END",
			text, argument, argument,
		)
	}
	return fmt.Sprintf("jsonb_typeof(v) = 'string' AND %s %s %s", text, test.Operator, argument)
}
