package hostagent

import (
	"context"
	"net/http"
	"strconv"

	"github.com/bladenet/bladenet/hostagent/api"
)

// Handler returns the API: what api.Routes lists, for whoever is allowed it.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	handlers := a.handlers()
	for _, route := range api.Routes() {
		if h := handlers[route.Pattern()]; h != nil {
			mux.Handle(route.Pattern(), allow(route.Access, h))
		}
	}
	return mux
}

// allow answers those that may, and tells others so.
func allow(access api.Access, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if access == api.Change && !mayChange(w, r) {
			return
		}
		h(w, r)
	}
}

// handlers is what each route does.
func (a *Agent) handlers() map[string]http.HandlerFunc {
	at := "/" + api.Version + "/"
	return map[string]http.HandlerFunc{
		"GET " + at + "status": func(w http.ResponseWriter, r *http.Request) {
			if r.FormValue("count") != "" {
				a.helpers.count()
			}
			answer(w)(a.Status(r.Context()))
		},
		"POST " + at + "plan":              a.servePlan,
		"GET " + at + "revisions":          func(w http.ResponseWriter, _ *http.Request) { answer(w)(a.Revisions()) },
		"GET " + at + "revisions/{number}": a.serveRevision,
		"POST " + at + "confirm":           a.serveConfirm,
		// Once begun, what changes the blade is brought to its end: a caller who goes away leaves no half blade.
		"POST " + at + "apply": streams(func(_ context.Context, in api.ApplyRequest, report func(api.Event)) error {
			return a.Apply(a.life, in, report)
		}),
		"POST " + at + "rollback": streams(func(_ context.Context, in api.RollbackRequest, report func(api.Event)) error {
			return a.Rollback(a.life, in, report)
		}),
		"POST " + at + "spawn":            streams(a.Spawn),
		"POST " + at + "destroy":          streams(a.Destroy),
		"POST " + at + "start":            streams(a.Start),
		"POST " + at + "stop":             streams(a.Stop),
		"POST " + at + "restart":          streams(a.Restart),
		"POST " + at + "drain":            streams(a.Drain),
		"POST " + at + "exec":             a.serveExec,
		"POST " + at + "console":          a.serveConsole,
		"GET " + at + "guests/{name}/log": a.serveLog,
		"POST " + at + "trace":            streams(a.Trace),
		"POST " + at + "doctor":           a.serveDoctor,
		"GET " + at + "events":            a.serveEvents,
		"GET " + at + "openapi.json":      serveDescription,
		"GET /metrics":                    a.metrics,
		"GET /healthz":                    a.healthz,
	}
}

func (a *Agent) servePlan(w http.ResponseWriter, r *http.Request) {
	var in api.PlanRequest
	if read(w, r, &in) {
		answer(w)(a.Plan(r.Context(), in))
	}
}

func (a *Agent) serveRevision(w http.ResponseWriter, r *http.Request) {
	number, err := strconv.Atoi(r.PathValue("number"))
	if err != nil {
		http.Error(w, "a revision is a number", http.StatusBadRequest)
		return
	}
	answer(w)(a.Revision(number))
}

func (a *Agent) serveConfirm(w http.ResponseWriter, r *http.Request) {
	var in api.ConfirmRequest
	if !read(w, r, &in) {
		return
	}
	number, err := a.Confirm(in.Revision)
	answer(w)(api.Confirmed{Version: api.Version, Revision: number}, err)
}

func (a *Agent) serveDoctor(w http.ResponseWriter, r *http.Request) {
	var in api.DoctorRequest
	if !read(w, r, &in) || in.Fix && !mayChange(w, r) {
		return
	}
	answer(w)(a.Doctor(r.Context(), in), nil)
}

func serveDescription(w http.ResponseWriter, _ *http.Request) {
	text, err := api.Describe()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", string(api.Document))
	_, _ = w.Write(text) // a client that went away is not the daemon's failure
}

// streams makes a handler of an operation that reports as it goes.
func streams[R any](run func(context.Context, R, func(api.Event)) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { stream(w, r, run) }
}
