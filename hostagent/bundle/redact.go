package bundle

import (
	"bytes"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/bladenet/bladenet/policy"
)

// hidden stands where a secret was.
const hidden = "REDACTED"

var (
	// An address with a name and a password before the host.
	userinfo = pattern(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s"'@]+@`)
	// What a header or a command line gives away.
	bearer = pattern(`(?i)\b(authorization["']?\s*[:=]\s*["']?(?:basic|bearer|digest)?|bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}`)
	// The private half of a key.
	private = pattern(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`)
	// A member of a YAML or JSON map, or an assignment, whose name says that it is secret.
	named = pattern(`(?i)([\w.-]*(?:passw(?:or)?d|passphrase|secret|token|credential|community|api[_-]?key|private[_-]?key|auth[_-]?key)[\w.-]*["']?\s*[:=][ \t]*)(?:(")(?:[^"\\\n]|\\.)*"|(')[^'\n]*'|[^\s,}\]#"'][^,}\]\n#]*)`)
	// What alerts are sent to: what stands behind the host is often all that it takes to write there.
	webhook = pattern(`(?i)((?:webhook|alerts)["']?\s*[:=]\s*\[?\s*["']?https?://[^/\s"',}\]?]+)[^\s"',}\]]+`)
	// A value that goes on in the lines below.
	block = pattern(`(?i)^(\s*)(?:- )?[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|credential|community|key)[\w.-]*\s*:\s*[|>][+-]?\d?\s*$`)
)

// pattern compiles an expression when it is used first: every start of a program that links this package would pay for it.
func pattern(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

// Redactor takes secrets out of text.
type Redactor struct{ known []secret }

// secret is a text that was seen in a policy, and what stands in its place.
type secret struct{ text, instead string }

// NewRedactor knows the secrets of these policy files wherever they turn up, in a log or an error too.
func NewRedactor(files []policy.File) *Redactor {
	r := &Redactor{}
	fleet, _ := policy.Parse(files) // of files with mistakes, what could be read
	if fleet == nil {
		return r
	}
	for _, a := range fleet.Alerts {
		u, err := url.Parse(a.Webhook)
		if err != nil || a.Webhook == "" {
			continue
		}
		safe := u.Scheme + "://" + u.Host + "/" + hidden
		r.add(a.Webhook, safe)
		r.add(u.String(), safe)
		r.add(u.Redacted(), safe) // as errors of net/http have it
		if len(u.RequestURI()) > 1 {
			r.add(u.RequestURI(), "/"+hidden)
		}
	}
	slices.SortStableFunc(r.known, func(a, b secret) int { return len(b.text) - len(a.text) }) // the longer may hold the shorter
	return r
}

// add remembers a text, as it is and as JSON writes it.
func (r *Redactor) add(text, instead string) {
	escaped := strings.NewReplacer("&", `\u0026`, "<", `\u003c`, ">", `\u003e`).Replace(text)
	for _, t := range []string{text, escaped} {
		if s := (secret{t, instead}); !slices.Contains(r.known, s) {
			r.known = append(r.known, s)
		}
	}
}

// Text returns text without secrets. What it takes for one by its looks goes too, though it may be none.
func (r *Redactor) Text(text []byte) []byte {
	for _, s := range r.known {
		text = bytes.ReplaceAll(text, []byte(s.text), []byte(s.instead))
	}
	text = private().ReplaceAll(text, []byte(hidden))
	var out bytes.Buffer
	deep := -1 // how far the name of a secret's block is indented, while in one
	for line := range bytes.Lines(text) {
		indent := len(line) - len(bytes.TrimLeft(line, " \t"))
		if deep >= 0 && (indent > deep || len(bytes.TrimSpace(line)) == 0) {
			continue
		}
		deep = -1
		if !suspect(line) {
			out.Write(line)
			continue
		}
		if m := block().FindSubmatch(bytes.TrimRight(line, "\r\n")); m != nil {
			deep = len(m[1])
			out.Write(line[:bytes.IndexByte(line, ':')])
			out.WriteString(": " + hidden + "\n")
			continue
		}
		line = userinfo().ReplaceAll(line, []byte("${1}"+hidden+"@"))
		line = webhook().ReplaceAll(line, []byte("${1}/"+hidden))
		line = named().ReplaceAll(line, []byte("${1}${2}${3}"+hidden+"${2}${3}"))
		out.Write(bearer().ReplaceAll(line, []byte("${1} "+hidden)))
	}
	return out.Bytes()
}

// words are in every line that one of the expressions can match.
var words = [][]byte{
	[]byte("://"), []byte("auth"), []byte("bearer"), []byte("basic"), []byte("passw"), []byte("passphrase"), []byte("secret"), []byte("token"), []byte("credential"),
	[]byte("community"), []byte("key"),
}

// suspect is cheap where the expressions are not: most lines of a log are not looked at again.
func suspect(line []byte) bool {
	line = bytes.ToLower(line)
	return slices.ContainsFunc(words, func(w []byte) bool { return bytes.Contains(line, w) })
}
