package api

// Access is what a caller must be allowed.
type Access string

// The kinds of access. A Unix socket gives its group both; over TLS the certificate says.
const (
	Look   Access = "look"   // see the blade
	Change Access = "change" // change it, or read what guests print and what policy files hold
)

// Writers is the organization (O) of client certificates that may change the blade; other certificates may look.
const Writers = "bladenet"

// Form is how an answer comes.
type Form string

// The forms: one document; documents as they come, one a line; text; a connection that is given to a command.
const (
	Document Form = "application/json"
	Lines    Form = "application/x-ndjson"
	Text     Form = "text/plain"
	Bytes    Form = "application/octet-stream"
	Upgraded Form = ExecProtocol
)

// Route is one request that the daemon answers.
type Route struct {
	Method, Path string // as patterns of net/http
	Brief        string
	Access       Access
	Query        []Query
	In, Out      any // values of the messages' types; nil: none
	Form         Form
}

// Pattern is the route as net/http takes it.
func (r Route) Pattern() string { return r.Method + " " + r.Path }

// Query is one parameter behind the question mark.
type Query struct {
	Name, Brief string
	Number      bool
}

var follow = Query{Name: "follow", Brief: "not empty: go on with what comes"}

// Routes lists all of them.
func Routes() []Route {
	at := func(verb string) string { return "/" + Version + "/" + verb }
	does := func(verb, brief string, in any) Route {
		return Route{Method: "POST", Path: at(verb), Brief: brief, Access: Change, In: in, Out: Event{}, Form: Lines}
	}
	return []Route{
		{Method: "GET", Path: at("status"), Brief: "the blade as it is", Access: Look, Query: []Query{{Name: "count", Brief: "not empty: let directors count what real servers have to do"}}, Out: Status{}, Form: Document},
		{Method: "POST", Path: at("plan"), Brief: "what would change", Access: Look, In: PlanRequest{}, Out: Plan{}, Form: Document},
		does("apply", "make the policy folder a revision and the blade so", ApplyRequest{}),
		{Method: "POST", Path: at("confirm"), Brief: "keep the revision that waits to be confirmed", Access: Change, In: ConfirmRequest{}, Out: Confirmed{}, Form: Document},
		does("rollback", "make an earlier revision so", RollbackRequest{}),
		{Method: "GET", Path: at("revisions"), Brief: "the revisions on disk", Access: Look, Out: Revisions{}, Form: Document},
		{Method: "GET", Path: at("revisions/{number}"), Brief: "one revision with its files", Access: Change, Out: Revision{}, Form: Document},
		does("spawn", "make new guests, all or none", SpawnRequest{}),
		does("destroy", "take guests out of the policy and remove them", DestroyRequest{}),
		does("start", "start a guest that was stopped", PowerRequest{}),
		does("stop", "stop a guest until it is started", PowerRequest{}),
		does("restart", "stop a guest and start it", PowerRequest{}),
		does("drain", "let a guest take no new connections, or take them again", DrainRequest{}),
		{Method: "POST", Path: at("exec"), Brief: "run a command in a container; on the Unix socket only", Access: Change, In: ExecRequest{}, Form: Upgraded},
		{Method: "POST", Path: at("console"), Brief: "couple a guest's console with files of the client's; on the Unix socket only", Access: Change, In: ConsoleRequest{}, Form: Upgraded},
		{
			Method: "GET", Path: at("guests/{name}/log"), Brief: "what a guest has printed on its console, as it did", Access: Change,
			Query: []Query{{Name: "lines", Brief: "how many of the last; 0: all that is kept", Number: true}, follow}, Form: Bytes,
		},
		does("trace", "follow packets of a VIP or a guest", TraceRequest{}),
		{Method: "POST", Path: at("doctor"), Brief: "what is wrong with the host; fix needs the access of a change", Access: Look, In: DoctorRequest{}, Out: Doctor{}, Form: Document},
		{
			Method: "GET", Path: at("events"), Brief: "the journal", Access: Look,
			Query: []Query{{Name: "after", Brief: "the number of the last entry that was seen", Number: true}, follow}, Out: Entry{}, Form: Lines,
		},
		{Method: "GET", Path: at("openapi.json"), Brief: "this description", Access: Look, Form: Document},
		{Method: "GET", Path: "/metrics", Brief: "figures for Prometheus", Access: Look, Form: Text},
		{Method: "GET", Path: "/healthz", Brief: "whether the loop goes on", Access: Look, Form: Text},
	}
}
