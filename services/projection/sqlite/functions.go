package sqlite

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"
	"modernc.org/sqlite"

	"github.com/headgate/headgate/services/projection/query"
)

// maxTests bounds the compiled tests of JSON columns.
const maxTests = 256

// init registers the functions of [query.SQLite] with the driver, for every connection. Both return NULL for an unset
// column.
func init() {
	sqlite.MustRegisterFunction(query.SQLiteLike, &sqlite.FunctionImpl{
		NArgs:         2,
		Deterministic: true,
		VolatileArgs:  true, // nothing is retained; texts may contain NUL
		Scalar: func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
			text, ok := args[0].(string)
			pattern, isText := args[1].(string)
			if !ok || !isText {
				return nil, nil
			}
			return query.Pattern(pattern).Match(text), nil
		},
	})
	tests, err := lru.New[string, query.JSONTest](maxTests)
	if err != nil {
		panic(err) // the bound is a positive constant
	}
	sqlite.MustRegisterFunction(query.SQLiteJSON, &sqlite.FunctionImpl{
		NArgs:         2,
		Deterministic: true,
		Scalar: func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
			text, ok := args[0].(string)
			encoded, isText := args[1].(string)
			if !ok || !isText {
				return nil, nil
			}
			test, known := tests.Get(encoded)
			if !known {
				if err := json.Unmarshal([]byte(encoded), &test); err != nil {
					return nil, fmt.Errorf("sqlite: a test of a JSON column: %w", err)
				}
				tests.Add(encoded, test)
			}
			return test.Match(text)
		},
	})
}
