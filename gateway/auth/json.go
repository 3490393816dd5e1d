package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// maxJSONDepth bounds the nesting of a token's header and claims.
const maxJSONDepth = 32

// members are the members of a JSON object, by name. Names are case-sensitive.
type members map[string]json.RawMessage

// parseMembers decodes a JSON object. It rejects text that is not UTF-8, nesting deeper than
// maxJSONDepth, and, at every depth, duplicate members: readers disagree on which of them applies
// (RFC 7515 §4, RFC 7519 §4, RFC 8725 §2.4).
func parseMembers(data []byte) (members, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("it is not UTF-8")
	}
	var out members
	if err := json.Unmarshal(data, &out); err != nil || out == nil {
		return nil, errors.New("it is not a JSON object")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	return out, checkNames(decoder, 0)
}

// checkNames reads one value of valid JSON and rejects duplicate names in it.
func checkNames(decoder *json.Decoder, depth int) error {
	if depth > maxJSONDepth {
		return errors.New("its values are nested too deeply")
	}
	token, err := decoder.Token()
	if err != nil {
		return err
	}
	delim, composite := token.(json.Delim)
	if !composite {
		return nil
	}
	names := map[string]bool{}
	for decoder.More() {
		if delim == '{' {
			token, err := decoder.Token()
			if err != nil {
				return err
			}
			name, _ := token.(string)
			if names[name] {
				return fmt.Errorf("member %.64q occurs twice", name)
			}
			names[name] = true
		}
		if err := checkNames(decoder, depth+1); err != nil {
			return err
		}
	}
	_, err = decoder.Token() // the closing delimiter
	return err
}

// text returns the string member of the name; "" if it is absent.
func (m members) text(name string) (text string, err error) {
	raw, ok := m[name]
	if !ok {
		return "", nil
	}
	if raw[0] != '"' || json.Unmarshal(raw, &text) != nil {
		return "", fmt.Errorf("%s is not a string", name)
	}
	return text, nil
}

// texts returns the member of the name, an array of strings; nil if it is absent.
func (m members) texts(name string) ([]string, error) {
	raw, ok := m[name]
	if !ok {
		return nil, nil
	}
	var list []*string
	if raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		return nil, fmt.Errorf("%s is not an array of strings", name)
	}
	out := make([]string, len(list))
	for i, text := range list {
		if text == nil {
			return nil, fmt.Errorf("%s is not an array of strings", name)
		}
		out[i] = *text
	}
	return out, nil
}

// lastDate is 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const lastDate = 253_402_300_799

// date returns the NumericDate member of the name (RFC 7519 §2), and whether it is
// present. It accepts whole seconds from 1970 to the year 9999 without sign,
// fraction or exponent.
func (m members) date(name string) (at time.Time, present bool, err error) {
	raw, ok := m[name]
	if !ok {
		return time.Time{}, false, nil
	}
	seconds, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil || seconds > lastDate {
		return time.Time{}, false, fmt.Errorf("%s is not a whole number of seconds from 1970 to the year 9999", name)
	}
	return time.Unix(int64(seconds), 0), true, nil
}
