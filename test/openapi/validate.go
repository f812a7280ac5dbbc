// Package openapi holds JSON against the schemas of an OpenAPI description. It knows what hostagent/api writes, refuses what it does not know, and
// is imported by tests only.
package openapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Document is a description.
type Document struct{ root map[string]any }

// Parse reads a description.
func Parse(text []byte) (Document, error) {
	var d Document
	err := json.Unmarshal(text, &d.root)
	return d, err
}

// At follows keys from the root; nil where there is none.
func (d Document) At(keys ...string) any {
	var at any = d.root
	for _, k := range keys {
		m, _ := at.(map[string]any)
		at = m[k]
	}
	return at
}

// Check lists where JSON is not as a schema of the document says. Members that the schema does not have are mistakes, whatever it says of them.
func (d Document) Check(schema any, text []byte) []string {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return []string{err.Error()}
	}
	return d.check("$", schema, value)
}

func (d Document) check(at string, schema, value any) []string {
	s, ok := schema.(map[string]any)
	if !ok {
		return []string{at + ": no schema"}
	}
	if ref, ok := s["$ref"].(string); ok {
		return d.check(at, d.At(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...), value)
	}
	kinds, many := s["type"].([]any)
	if !many {
		kinds = []any{s["type"]}
	}
	kind := kindOf(value)
	if !slices.Contains(kinds, any(kind)) {
		return []string{fmt.Sprintf("%s: %s, want %v", at, kind, kinds)}
	}
	switch kind {
	case "object":
		return d.checkObject(at, s, value.(map[string]any))
	case "array":
		var out []string
		for i, one := range value.([]any) {
			out = append(out, d.check(fmt.Sprintf("%s[%d]", at, i), s["items"], one)...)
		}
		return out
	case "integer":
		if least, ok := s["minimum"].(float64); ok && value.(float64) < least {
			return []string{fmt.Sprintf("%s: %v is less than %v", at, value, least)}
		}
	case "string":
		if s["format"] == "date-time" {
			if _, err := time.Parse(time.RFC3339Nano, value.(string)); err != nil {
				return []string{fmt.Sprintf("%s: %v", at, err)}
			}
		}
	}
	return nil
}

func (d Document) checkObject(at string, s, value map[string]any) []string {
	var out []string
	members, _ := s["properties"].(map[string]any)
	required, _ := s["required"].([]any)
	for _, name := range required {
		if _, ok := value[name.(string)]; !ok {
			out = append(out, fmt.Sprintf("%s: no %v", at, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(value)) {
		one, known := members[name]
		if more, ok := s["additionalProperties"].(map[string]any); !known && ok {
			one, known = more, true
		}
		if !known {
			out = append(out, fmt.Sprintf("%s: %q is not described", at, name))
			continue
		}
		out = append(out, d.check(at+"."+name, one, value[name])...)
	}
	return out
}

// kindOf is a value's type in JSON Schema's words.
func kindOf(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
	}
	return "number"
}
