package api_test

import (
	"encoding"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/test/golden"
	"github.com/bladenet/bladenet/test/openapi"
)

// TestThePublishedDescription keeps docs/openapi.json as the types say; `go test ./hostagent/api -update` writes it.
func TestThePublishedDescription(t *testing.T) {
	text, err := api.Describe()
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "../../../docs/openapi.json", text)
}

// filled is a value of a type in which nothing is empty.
func filled(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	if t == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)))
		return v
	}
	switch t.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("x")
	case reflect.Pointer:
		v.Set(filled(t.Elem()).Addr())
	case reflect.Slice:
		v.Set(reflect.Append(v, filled(t.Elem())))
	case reflect.Map:
		v.Set(reflect.MakeMap(t))
		v.SetMapIndex(filled(t.Key()), filled(t.Elem()))
	case reflect.Struct:
		for f := range t.Fields() {
			if f.IsExported() {
				v.FieldByIndex(f.Index).Set(filled(f.Type))
			}
		}
	default:
		if _, ok := v.Interface().(encoding.TextMarshaler); !ok && v.CanInt() {
			v.SetInt(7)
		} else if v.CanUint() {
			v.SetUint(7)
		}
	}
	return v
}

// TestEveryMessageIsAsDescribed encodes each route's messages, full and empty, and holds them against the description.
func TestEveryMessageIsAsDescribed(t *testing.T) {
	text, err := api.Describe()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	messages := 0
	for _, r := range api.Routes() {
		for _, m := range []struct {
			message any
			schema  any
		}{
			{r.In, doc.At("paths", r.Path, strings.ToLower(r.Method), "requestBody", "content", "application/json", "schema")},
			{r.Out, doc.At("paths", r.Path, strings.ToLower(r.Method), "responses", "200", "content", string(r.Form), "schema")},
		} {
			if m.message == nil {
				continue
			}
			messages++
			typ := reflect.TypeOf(m.message)
			for _, v := range []reflect.Value{filled(typ), reflect.Zero(typ)} {
				text, err := json.Marshal(v.Interface())
				if err != nil {
					t.Fatal(err)
				}
				for _, wrong := range doc.Check(m.schema, text) {
					t.Errorf("%s: %s: %s", r.Pattern(), typ, wrong)
				}
			}
			// The oracle sees what is wrong.
			if wrong := doc.Check(m.schema, []byte(`{"nosuch": 1}`)); len(wrong) == 0 {
				t.Errorf("%s: %s: a member that is not there is taken", r.Pattern(), typ)
			}
		}
	}
	if messages < 25 {
		t.Errorf("%d messages: the routes have more", messages)
	}
	if _, err := os.Stat("../../docs/openapi.json"); err != nil {
		t.Error(err)
	}
}
