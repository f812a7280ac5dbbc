package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"
)

// DefaultName is $LAB_NAME, or "default".
func DefaultName() string {
	if name := os.Getenv("LAB_NAME"); name != "" {
		return name
	}
	return "default"
}

// Folder is where running labs keep their state: bladenet-lab below $XDG_RUNTIME_DIR or /run.
func Folder() string {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = "/run"
	}
	return filepath.Join(dir, "bladenet-lab")
}

// Lab is one lab by its name; it may or may not run.
type Lab struct {
	Name string
	Dir  string // its state folder
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// Open returns the lab of a name, whether it runs or not.
func Open(name string) (*Lab, error) {
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("open lab %q: a name has letters a-z, digits and dashes, 31 at most", name)
	}
	l := &Lab{Name: name, Dir: filepath.Join(Folder(), name)}
	// sun_path of unix(7) holds 107 bytes.
	if longest := l.path("images.sock"); len(longest) > 107 {
		return nil, fmt.Errorf("open lab %q: path of its sockets is too long: %s", name, longest)
	}
	return l, nil
}

func (l *Lab) path(name string) string { return filepath.Join(l.Dir, name) }

// Files of a lab's state folder.
const (
	fileSpec       = "spec.json"       // spec: what to run; written by Up
	fileSupervisor = "supervisor.json" // process; written by Up
	fileRunning    = "running.json"    // running: how to reach it; written by the supervisor
	fileEnd        = "end.json"        // ending: why it no longer runs; written by the supervisor
	fileConsole    = "console.log"
	fileQEMU       = "qemu.log"
	fileMonitor    = "qmp.sock"
	fileControl    = "control.sock" // the same for whoever restarts the machine
	fileLog        = "supervisor.log"
	fileInitrd     = "initrd"
)

// specVersion counts what a lab command must know to speak with the machine that another build of it started.
const specVersion = 1

// spec is all that a supervisor needs to run a lab.
type spec struct {
	Version int           `json:"version"`
	Name    string        `json:"name"`
	Token   string        `json:"token"`
	Accel   string        `json:"accel"`
	Memory  int           `json:"memory"` // MiB
	CPUs    int           `json:"cpus"`
	TTL     time.Duration `json:"ttl"`
	Kernel  string        `json:"kernel"`
	Root    string        `json:"root"`
	Source  string        `json:"source"`
	Images  string        `json:"images"`
	Fleet   string        `json:"fleet"`
	Systemd bool          `json:"systemd"`
	Blades  []string      `json:"blades"`
	Started time.Time     `json:"started"`
}

// running is how to reach a running machine.
type running struct {
	Port    int     `json:"port"` // on 127.0.0.1
	Machine process `json:"machine"`
}

// ending is why a machine no longer runs.
type ending struct {
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

func (l *Lab) read(name string, value any) error {
	data, err := os.ReadFile(l.path(name))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, value)
}

// write replaces a file at once, so that a reader never sees half of it.
func (l *Lab) write(name string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	fresh := l.path(fmt.Sprintf("%s.%d", name, os.Getpid()))
	if err := os.WriteFile(fresh, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, l.path(name))
}

// alive says whether the lab's supervisor runs.
func (l *Lab) alive() bool {
	var p process
	return l.read(fileSupervisor, &p) == nil && p.alive()
}

// why says why a lab is not running, with the end of what its machine and qemu said.
func (l *Lab) why() error {
	if _, err := os.Stat(l.Dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lab %s is not up: lab up --name %s", l.Name, l.Name)
	}
	var e ending
	if l.read(fileEnd, &e) != nil {
		e.Reason = "its supervisor was killed"
	}
	text := fmt.Sprintf("lab %s no longer runs: %s", l.Name, e.Reason)
	logs := []string{fileConsole, fileQEMU, fileLog}
	if strings.Contains(e.Reason, filepath.Base(virtiofsd)) { // else it tells of its everyday life
		logs = append(logs, "virtiofsd-src.log", "virtiofsd-images.log")
	}
	for _, log := range logs {
		if end := l.tail(log); end != "" {
			text += fmt.Sprintf("\n--- end of %s\n%s", l.path(log), end)
		}
	}
	if kept := consoles(l.Name); len(kept) > 0 {
		text += "\n--- the whole console is kept in " + kept[len(kept)-1]
	}
	return errors.New(text)
}

// Status is one line of List.
type Status struct {
	Name   string
	Alive  bool
	Reason string // why it ended, if it did
	Accel  string
	Blades []string
	Fleet  string
	Age    time.Duration
	Left   time.Duration // of its time to live
}

// List returns every lab that has a state folder, by name.
func List() ([]Status, error) {
	entries, err := os.ReadDir(Folder())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var list []Status
	for _, e := range entries {
		l, err := Open(e.Name())
		if err != nil || !e.IsDir() {
			continue
		}
		var s spec
		var end ending
		_ = l.read(fileSpec, &s)
		_ = l.read(fileEnd, &end)
		age := time.Since(s.Started).Round(time.Second)
		list = append(list, Status{l.Name, l.alive(), end.Reason, s.Accel, s.Blades, s.Fleet, age, s.TTL - age})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

// Down ends a lab and removes everything it made. It is no error if there is none.
func Down(name string) error {
	l, err := Open(name)
	if err != nil {
		return err
	}
	var supervisor process
	if l.read(fileSupervisor, &supervisor) == nil {
		if err := supervisor.end(10 * time.Second); err != nil {
			return fmt.Errorf("take lab %s down: %w", name, err)
		}
	}
	// A supervisor that was killed takes its machine along, but does not wait for it.
	var r running
	if l.read(fileRunning, &r) == nil {
		if err := r.Machine.end(10 * time.Second); err != nil {
			return fmt.Errorf("take lab %s down: %w", name, err)
		}
	}
	if err := l.remove(); err != nil {
		return fmt.Errorf("take lab %s down: %w", name, err)
	}
	_ = os.Remove(Folder()) // when it was the last
	return nil
}

// remove deletes the state folder. It does not descend: a folder in it may be a mount point of a share.
func (l *Lab) remove() error {
	entries, err := os.ReadDir(l.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		err = errors.Join(err, os.Remove(l.path(e.Name())))
	}
	return errors.Join(err, os.Remove(l.Dir))
}

// Source is the repository that a running lab shares.
func (l *Lab) Source() (string, error) {
	var s spec
	if !l.alive() || l.read(fileSpec, &s) != nil {
		return "", l.why()
	}
	return s.Source, nil
}
