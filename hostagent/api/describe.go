package api

import (
	"encoding"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// object is a JSON object; its keys are encoded in their order.
type object = map[string]any

// Describe returns the API's description: OpenAPI 3.1, whose schemas are JSON Schema 2020-12, made from the routes and their messages' types.
func Describe() ([]byte, error) {
	s := schemas{known: object{}, types: map[string]reflect.Type{}}
	paths := object{}
	for _, r := range Routes() {
		methods, ok := paths[r.Path].(object)
		if !ok {
			methods = object{}
			paths[r.Path] = methods
		}
		methods[strings.ToLower(r.Method)] = s.operation(r)
	}
	doc := object{
		"openapi":    "3.1.0",
		"info":       object{"title": "bladed", "version": Version, "description": about},
		"paths":      paths,
		"components": object{"schemas": s.known},
	}
	if s.err != nil {
		return nil, fmt.Errorf("describe the API: %w", s.err)
	}
	out, err := json.MarshalIndent(doc, "", "  ")
	return append(out, '\n'), err
}

const about = "The network agent of a blade, on its Unix socket for root and the group bladenet, and over TLS 1.3 for clients whose certificate it trusts. " +
	"x-access says what a caller must be allowed: certificates of the organization " + Writers + " may change, others may look. " +
	"Durations are nanoseconds. What streams answers one document a line; the last event of an operation has done, and error where it failed. " +
	"Clients take no notice of members that they do not know."

func (s *schemas) operation(r Route) object {
	params, parameter := []any{}, regexp.MustCompile(`\{(\w+)\}`) // here and not before main: few ever ask for the description
	for _, m := range parameter.FindAllStringSubmatch(r.Path, -1) {
		params = append(params, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, q := range r.Query {
		kind := "string"
		if q.Number {
			kind = "integer"
		}
		params = append(params, object{"name": q.Name, "in": "query", "description": q.Brief, "schema": object{"type": kind}})
	}
	op := object{"summary": r.Brief, "x-access": r.Access, "responses": object{}}
	if len(params) > 0 {
		op["parameters"] = params
	}
	if r.In != nil {
		op["requestBody"] = object{"required": true, "content": object{string(Document): object{"schema": s.of(reflect.TypeOf(r.In), true)}}}
	}
	answer := object{"description": "done, or begun where it streams"}
	status := http.StatusOK
	switch {
	case r.Form == Upgraded:
		status, answer = http.StatusSwitchingProtocols, object{"description": "a connection of the protocol " + ExecProtocol}
	case r.Out == nil:
		answer["content"] = object{string(r.Form): object{}}
	default:
		answer["content"] = object{string(r.Form): object{"schema": s.of(reflect.TypeOf(r.Out), false)}}
	}
	op["responses"] = object{
		fmt.Sprint(status): answer,
		"default":          object{"description": "why not, in a sentence", "content": object{string(Text): object{"schema": object{"type": "string"}}}},
	}
	return op
}

// schemas collects the messages' schemas by their types' names.
type schemas struct {
	known object
	types map[string]reflect.Type
	err   error
}

var (
	instant  = reflect.TypeFor[time.Time]()
	duration = reflect.TypeFor[time.Duration]()
	textual  = reflect.TypeFor[encoding.TextMarshaler]()
	own      = reflect.TypeFor[json.Marshaler]()
)

// of is the schema of a type's JSON. What a request holds has no other members than those here: the daemon refuses them.
func (s *schemas) of(t reflect.Type, request bool) object {
	switch {
	case t == instant:
		return object{"type": "string", "format": "date-time"}
	case t == duration:
		return object{"type": "integer", "format": "int64", "description": "nanoseconds"}
	case t.Implements(own) && !t.Implements(textual):
		s.fail("%s writes itself", t)
	case t.Implements(textual):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Pointer:
		return s.of(t.Elem(), request)
	case reflect.Slice:
		return object{"type": "array", "items": s.of(t.Elem(), request)}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem(), request)}
	case reflect.Struct:
		return s.named(t, request)
	}
	s.fail("%s has no JSON", t)
	return object{}
}

func (s *schemas) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
	}
}

// named refers to a struct's schema, which is made once.
func (s *schemas) named(t reflect.Type, request bool) object {
	ref := object{"$ref": "#/components/schemas/" + t.Name()}
	if was, ok := s.types[t.Name()]; ok {
		if was != t {
			s.fail("%s and %s have one name", was, t)
		}
		return ref
	}
	schema := object{"type": "object"}
	s.types[t.Name()], s.known[t.Name()] = t, schema
	members, required := object{}, []any{}
	s.members(t, request, members, &required)
	schema["properties"] = members
	if len(required) > 0 {
		schema["required"] = required
	}
	if request {
		schema["additionalProperties"] = false
	}
	return ref
}

// members adds those of a struct, and of what is embedded in it, as encoding/json does.
func (s *schemas) members(t reflect.Type, request bool, into object, required *[]any) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			s.members(f.Type, request, into, required)
			continue
		}
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			s.fail("%s.%s has no name in JSON", t, f.Name)
		}
		one := s.of(f.Type, request)
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		if k := f.Type.Kind(); !optional && (k == reflect.Slice || k == reflect.Map) && one["type"] != nil {
			one["type"] = []any{one["type"], "null"} // as Go writes one that is empty
		}
		if !optional {
			*required = append(*required, name)
		}
		into[name] = one
	}
}
