package result

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// Machine says where figures come from.
type Machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// Report is one run.
type Report struct {
	When    time.Time `json:"when"`
	Machine Machine   `json:"machine"`       // where native rows ran
	Lab     *Machine  `json:"lab,omitempty"` // and those that need a blade's kernel
	Rows    []Row     `json:"rows"`
}

// ThisMachine reads the machine's own description.
func ThisMachine() Machine {
	m := Machine{CPU: "unknown", CPUs: runtime.NumCPU(), Go: runtime.Version()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return m
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m
}

// Encode writes a report as JSON.
func Encode(w io.Writer, r Report) error {
	for i := range r.Rows {
		r.Rows[i] = r.Rows[i].finite()
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Write writes a report to a file, and the folder if it is not there.
func Write(path string, r Report) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := Encode(f, r); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Close()
}

// Render writes a report as a table for people.
func Render(w io.Writer, r Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "row\tratio\t[p25..p75]\ttarget\t\tours\tpeer\tunit\twhat, against what")
	for _, x := range r.Rows {
		x = x.finite()
		target, met := x.verdict()
		fmt.Fprintf(t, "%s\t%s\t[%s..%s]\t%s\t%s\t%s\t%s\t%s\t%s\n",
			x.ID, short(x.Ratio), short(x.P25), short(x.P75), target, met, short(x.Ours), short(x.Peer), x.Unit, x.against())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, x := range r.Rows {
		x = x.finite()
		if x.Note != "" {
			fmt.Fprintf(w, "%s: %s\n", x.ID, x.Note)
		}
	}
	m := r.Machine
	_, err := fmt.Fprintf(w, "%s: %d x %s, Linux %s, %s\n", r.When.Format(time.DateTime), m.CPUs, m.CPU, m.Kernel, m.Go)
	if err == nil && r.Lab != nil {
		_, err = fmt.Fprintf(w, "lab: %d x %s, Linux %s\n", r.Lab.CPUs, r.Lab.CPU, r.Lab.Kernel)
	}
	return err
}

func (r Row) against() string {
	if r.PeerIs == "" {
		return r.What
	}
	return r.What + ", against " + r.PeerIs
}

const missed = "missed"

func (r Row) verdict() (target, met string) {
	if r.Target == nil {
		return "-", ""
	}
	sign := "<="
	if r.Bound == AtLeast {
		sign = ">="
	}
	if *r.Met {
		return sign + short(*r.Target), "met"
	}
	return sign + short(*r.Target), missed
}

// short writes four significant digits, as few as say the same.
func short(v float64) string {
	if v >= 1000 || v == float64(int(v)) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
