package hostagent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

// executor is a driver that can run a command in a guest.
type executor interface {
	// Exec runs a command with these files as its standard ones and returns its exit status. When ctx ends, the command does.
	Exec(ctx context.Context, name policy.GuestName, command, env []string, files [3]*os.File) (int, error)
}

// consoler is a driver that can couple a guest's console with files.
type consoler interface {
	// Console hands on what is read from the first file, and writes what the guest prints to the second, until the guest, the first file or
	// ctx ends.
	Console(ctx context.Context, name policy.GuestName, files [3]*os.File) error
}

// withFiles is what is done with a client's files. It returns an exit status.
type withFiles func(ctx context.Context, files [3]*os.File) (int, error)

// serveExec runs one command in a container.
func (a *Agent) serveExec(w http.ResponseWriter, r *http.Request) {
	var in api.ExecRequest
	if !read(w, r, &in) {
		return
	}
	run, err := a.executorOf(in)
	var env []string
	if in.Term != "" {
		env = append(env, "TERM="+in.Term)
	}
	a.serveFiles(w, r, err, func(ctx context.Context, files [3]*os.File) (int, error) {
		a.log.Info("exec", "guest", in.Name, "command", in.Command)
		return run.Exec(ctx, in.Name, in.Command, env, files)
	})
}

// serveConsole couples a guest's console with the client's files.
func (a *Agent) serveConsole(w http.ResponseWriter, r *http.Request) {
	var in api.ConsoleRequest
	if !read(w, r, &in) {
		return
	}
	open, err := a.consolerOf(in.Name)
	a.serveFiles(w, r, err, func(ctx context.Context, files [3]*os.File) (int, error) {
		a.log.Info("console", "guest", in.Name)
		return 0, open.Console(ctx, in.Name, files)
	})
}

// serveFiles upgrades a connection to api.ExecProtocol and does something with the files that come over it, unless err says that it is
// not to be.
func (a *Agent) serveFiles(w http.ResponseWriter, r *http.Request, err error, do withFiles) {
	if err == nil && r.Header.Get("Upgrade") != api.ExecProtocol {
		err = fmt.Errorf("files are handed over with Upgrade: %s", api.ExecProtocol)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	var out api.ExecResult
	if out.Status, err = a.doOn(conn, buffered, do); err != nil {
		out.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(out) // a client that went away is not the daemon's failure
}

func (a *Agent) executorOf(in api.ExecRequest) (executor, error) {
	if len(in.Command) == 0 {
		return nil, errors.New("exec: no command")
	}
	g, err := a.wantedGuest(in.Name)
	if err != nil {
		return nil, err
	}
	run, ok := a.cfg.Drivers[g.Driver].(executor)
	if !ok {
		return nil, fmt.Errorf("exec in %s: commands run in containers, and it is a %s guest", in.Name, g.Driver)
	}
	return run, nil
}

func (a *Agent) consolerOf(name policy.GuestName) (consoler, error) {
	g, err := a.wantedGuest(name)
	if err != nil {
		return nil, err
	}
	open, ok := a.cfg.Drivers[g.Driver].(consoler)
	if !ok {
		return nil, fmt.Errorf("console of %s: this blade runs no %s guests", name, g.Driver)
	}
	return open, nil
}

// doOn takes the files from an upgraded connection and does something with them until that or the client ends.
func (a *Agent) doOn(conn net.Conn, buffered *bufio.ReadWriter, do withFiles) (int, error) {
	_ = conn.SetDeadline(time.Now().Add(requestTimeout))
	answer := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + api.ExecProtocol + "\r\n\r\n"
	if _, err := io.WriteString(conn, answer); err != nil {
		return 0, err
	}
	stream, ok := conn.(*net.UnixConn)
	if !ok || buffered.Reader.Buffered() > 0 {
		return 0, errors.New("files are handed over a Unix socket, with nothing on it before the answer")
	}
	files, err := receiveFiles(stream)
	if err != nil {
		return 0, err
	}
	defer closeFiles(files[:])
	_ = conn.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancel(a.life)
	defer cancel()
	go func() {
		_, _ = conn.Read(make([]byte, 1)) // nothing comes but the end
		cancel()
	}()
	return do(ctx, files)
}

// receiveFiles reads one byte and the three files that come with it.
func receiveFiles(stream *net.UnixConn) (files [3]*os.File, err error) {
	data, control := make([]byte, 1), make([]byte, unix.CmsgSpace(16*4))
	_, n, _, _, err := stream.ReadMsgUnix(data, control)
	if err != nil {
		return files, fmt.Errorf("receive files: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return files, fmt.Errorf("receive files: %w", err)
	}
	var got []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // of another kind
		}
		for _, fd := range fds {
			got = append(got, os.NewFile(uintptr(fd), "client"))
		}
	}
	if len(got) != len(files) {
		closeFiles(got)
		return files, fmt.Errorf("receive files: %d came, want standard input, output and error", len(got))
	}
	copy(files[:], got)
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
