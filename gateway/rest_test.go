package gateway_test

import (
	"net/http"
	"strings"
	"testing"
)

// Each error of the REST interface itself has its HTTP status, code and message, as JSON.
func TestREST_ErrorsSayWhatToDo(t *testing.T) {
	e := start(t, nil)
	for name, tc := range map[string]struct {
		method, path, body, contentType string
		status                          int
		want                            string
	}{
		"unsupported HTTP method": {
			http.MethodDelete, "/v1/query/wallets/w1", "", "",
			http.StatusMethodNotAllowed,
			`{"code":"unimplemented","message":"DELETE is not allowed at /v1/query/wallets/w1: use GET or HEAD"}`,
		},
		"unsupported content type": {
			http.MethodPost, "/v1/query/wallets", "view=wallets", "application/x-www-form-urlencoded",
			http.StatusUnsupportedMediaType,
			`the content type is \"application/x-www-form-urlencoded\": send application/json`,
		},
		"unknown parameter": {
			http.MethodGet, "/v1/query/wallets?colour=red", "", "",
			http.StatusBadRequest, `query parameter: colour: it is not a field of projection.gateway.v1.QueryRequest`,
		},
		"parameter of a wrong type": {
			http.MethodGet, "/v1/query/wallets?query.page_size=many", "", "",
			http.StatusBadRequest, `query parameter: query.page_size: \"many\" is not a 32-bit integer`,
		},
		"singular parameter given twice": {
			http.MethodGet, "/v1/query/wallets?query.page_size=1&query.page_size=2", "", "",
			http.StatusBadRequest, `query parameter: query.page_size: it is given more than once, and takes one value`,
		},
		"malformed query string": {
			http.MethodGet, "/v1/query/wallets?query.filter=%zz", "", "",
			http.StatusBadRequest, `the query string is malformed`,
		},
		"parameter that is not UTF-8": {
			http.MethodGet, "/v1/query/wallets?query.filter=%ff", "", "",
			http.StatusBadRequest, `query parameter: query.filter: the text is not valid UTF-8`,
		},
		"path that is not UTF-8": {
			http.MethodGet, "/v1/query/wallets/%ff", "", "",
			http.StatusBadRequest, `path: key: the text is not valid UTF-8`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			status, text := e.http(t, tc.method, tc.path, tc.body, "Authorization", e.token(t, "acme", "query.read"),
				"Content-Type", tc.contentType)
			if status != tc.status || !strings.Contains(text, tc.want) || !strings.HasPrefix(text, `{"code":"`) {
				t.Errorf("%d %s", status, text)
			}
		})
	}
}

func TestREST_RepeatedParameterFillsList(t *testing.T) {
	e := start(t, nil)
	status, text := e.http(t, http.MethodGet, "/v1/query/wallets?query.fields=owner&query.fields=balance", "",
		"Authorization", e.token(t, "acme", "query.read"))
	if status != http.StatusOK {
		t.Errorf("%d %s", status, text)
	}
}

// The document is requested without a credential.
func TestOpenAPI_ErrorIsJSON(t *testing.T) {
	e := start(t, nil)
	status, text := e.http(t, http.MethodGet, "/openapi.json", "")
	if status != http.StatusUnauthorized ||
		!strings.HasPrefix(text, `{"code":"unauthenticated","message":"no credential`) {
		t.Errorf("%d %s", status, text)
	}
}
