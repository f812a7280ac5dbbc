package policy

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"time"
)

// JSONSchema returns the JSON schema (draft 2020-12) of a policy file, for editors, made of the document types. It knows
// syntax and types; what entries say of each other is for Load.
func JSONSchema() []byte {
	s := objectSchema(reflect.TypeFor[document]())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	for _, p := range s["properties"].(schemaNode) {
		if section := p.(schemaNode); section["type"] == "array" {
			section["type"] = []string{"array", "null"}
		}
	}
	s["title"] = "Bladenet policy file"
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		panic(err) // maps, lists and texts only
	}
	return out.Bytes()
}

// schemaNode is one schema; encoding/json writes its keys in order.
type schemaNode map[string]any

// schemaFor describes a document type.
func schemaFor(t reflect.Type, tag reflect.StructTag) schemaNode {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := t.Name()
	switch {
	case strings.HasPrefix(name, "at["):
		return scalarSchema(reflect.Zero(t.Field(0).Type).Interface(), tag)
	case strings.HasPrefix(name, "entries["):
		value, _ := t.Field(0).Type.Elem().FieldByName("Value")
		return schemaNode{
			"type": []string{"object", "null"}, "propertyNames": labelSchema(), "additionalProperties": schemaFor(value.Type, ""),
		}
	case t == reflect.TypeFor[announceDoc]():
		o := objectSchema(t)
		o["maxProperties"] = 1
		return schemaNode{"anyOf": []any{schemaNode{"const": "none"}, o}}
	case t == reflect.TypeFor[alertDoc]():
		o := objectSchema(t)
		o["minProperties"], o["maxProperties"] = 1, 1
		return o
	case t == reflect.TypeFor[bfdDoc]():
		return schemaNode{"anyOf": []any{schemaNode{"type": "boolean"}, objectSchema(t)}}
	case t == reflect.TypeFor[targetDoc]():
		return schemaNode{
			"type": "array", "minItems": 2, "maxItems": 2,
			"prefixItems": []any{scalarSchema(Endpoint{}, ""), scalarSchema(PortRange{}, "")},
		}
	case t.Kind() == reflect.Slice:
		return schemaNode{"type": "array", "items": schemaFor(t.Elem(), "")}
	}
	return objectSchema(t)
}

// objectSchema describes a map with fixed keys.
func objectSchema(t reflect.Type) schemaNode {
	properties, required := schemaNode{}, []string{}
	shape := shapeOf(t)
	for i, f := range shape.fields {
		sub := schemaFor(t.Field(f.index).Type, f.tag)
		sub["description"] = described(f.tag)
		properties[shape.names[i]] = sub
		if f.required {
			required = append(required, shape.names[i])
		}
	}
	kind := any("object")
	if len(required) == 0 {
		kind = []string{"object", "null"}
	}
	out := schemaNode{"type": kind, "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

// described joins a field's doc and default.
func described(tag reflect.StructTag) string {
	text := tag.Get("doc")
	if def := tag.Get("default"); def != "" {
		text += " Default: " + def + "."
	}
	return text
}

const labelPattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"

func labelSchema() schemaNode { return schemaNode{"type": "string", "pattern": labelPattern} }

func enum(words ...string) schemaNode { return schemaNode{"enum": words} }

func integer(least, most int64) schemaNode {
	return schemaNode{"type": "integer", "minimum": least, "maximum": most}
}

func pattern(p string) schemaNode { return schemaNode{"type": "string", "pattern": p} }

// scalarSchema describes a scalar type by one value of it.
func scalarSchema(v any, tag reflect.StructTag) schemaNode {
	switch v.(type) {
	case ZoneName, SiteName, NetworkName, BladeName, GuestName, ServiceName, VolumeName, ruleName:
		return labelSchema()
	case NetworkRole:
		return enum(string(NetworkUplink), string(NetworkService), string(NetworkReturn))
	case Mode:
		return enum(string(ModeLocality), string(ModeSurvive), string(ModeSpread))
	case Driver:
		return enum(string(DriverKVM), string(DriverLXC))
	case scheduler:
		return enum(schedulers...)
	case recordType:
		return enum(recordTypes...)
	case Verdict:
		return enum(string(Accept), string(Drop))
	case VLANID:
		return integer(1, 4094)
	case portNumber:
		return integer(1, 65535)
	case asNumber:
		return integer(1, 4294967294)
	case int:
		return integer(field{tag: tag}.bounds())
	case bool:
		return schemaNode{"type": "boolean"}
	case netip.Addr:
		return schemaNode{"type": "string", "anyOf": []any{schemaNode{"format": "ipv4"}, schemaNode{"format": "ipv6"}}}
	case netip.Prefix:
		return pattern("^[0-9a-f.:]+/[0-9]{1,3}$")
	case time.Duration:
		return pattern("^[0-9]+(ms|s|m|h)$")
	case Size:
		return pattern("^[0-9]+(KiB|MiB|GiB)$")
	case Share:
		return schemaNode{"anyOf": []any{schemaNode{"const": 0}, pattern("^([0-9]{1,2}(\\.[0-9]{1,3})?|100(\\.0{1,3})?)%$")}}
	case PortRange:
		return pattern("^(icmp|[0-9]{1,5}(-[0-9]{1,5})?/(tcp|udp))$")
	case TCPFlags:
		return pattern("^(fin|syn|rst|psh|ack|urg)(, ?(fin|syn|rst|psh|ack|urg))*$")
	case nicName:
		return schemaNode{"type": "string", "minLength": 1, "maxLength": portNameLength, "pattern": "^[^/: \\t]+$"}
	case urlPath, filePath:
		return pattern("^/[^ ]*$")
	case volumePath:
		return pattern(volumePattern)
	case areaID:
		return schemaNode{"type": []string{"string", "integer"}}
	}
	return schemaNode{"type": "string"}
}
