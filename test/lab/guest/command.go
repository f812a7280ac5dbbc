package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/test/lab/wire"
)

// quiet is how long an output must be silent, once its command has ended, before it counts as finished although a process
// that the command left behind still holds it.
const quiet = 150 * time.Millisecond

// session is one running command.
type session struct {
	conn    *wire.Conn
	cmd     *exec.Cmd
	stdin   *os.File // nil after StdinEnd with a pipe
	tty     *os.File // nil without a terminal
	outputs []output
	ended   atomic.Bool
}

// output is one stream of a command and the kind of its frames.
type output struct {
	file *os.File
	kind wire.Kind
}

// runCommand runs a request's command to its end, on the blade if it names no other place. When the connection breaks first, it kills the command and its group.
func runCommand(conn *wire.Conn, request wire.Request, blade string) wire.Result {
	s := &session{conn: conn}
	if err := s.start(request, blade); err != nil {
		return wire.Result{Status: startStatus(err), Reason: err.Error()}
	}
	_ = conn.Send(wire.Started, nil)
	var copies sync.WaitGroup
	for _, o := range s.outputs {
		copies.Go(func() { s.copyOut(o) })
	}
	go s.readHost()
	_ = s.cmd.Wait()
	s.ended.Store(true)
	for _, o := range s.outputs {
		_ = o.file.SetReadDeadline(time.Now().Add(quiet))
	}
	copies.Wait()
	return wire.Result{Status: endStatus(s.cmd.ProcessState)}
}

// startStatus is a shell's status for a command that could not be started.
func startStatus(err error) int {
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return 127
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.ENOEXEC):
		return 126
	}
	return 125
}

func endStatus(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// start places the command and starts it there. A goroutine of its own does it, because its thread changes namespaces.
func (s *session) start(request wire.Request, blade string) error {
	if len(request.Args) == 0 {
		return errors.New("no command")
	}
	if err := copyPrograms(builtPrograms, ownPrograms); err != nil {
		return err
	}
	place, err := findPlace(request.In, blade)
	if err != nil {
		return err
	}
	theirs, err := s.openStreams(request.Size)
	if err != nil {
		return err
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, see listen
		started <- s.startHere(place, request, theirs)
	}()
	err = <-started
	for _, f := range theirs {
		f.Close()
	}
	return err
}

// openStreams makes the pipes or the terminal between the agent and the command, and returns the command's ends.
func (s *session) openStreams(size *wire.Size) ([]*os.File, error) {
	if size != nil {
		master, slave, err := openPTY(*size)
		if err != nil {
			return nil, err
		}
		s.tty, s.stdin, s.outputs = master, master, []output{{master, wire.Stdout}}
		return []*os.File{slave, slave, slave}, nil
	}
	var files [6]*os.File
	for i := 0; i < len(files); i += 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("make pipe: %w", err)
		}
		files[i], files[i+1] = r, w
	}
	s.stdin = files[1]
	s.outputs = []output{{files[2], wire.Stdout}, {files[4], wire.Stderr}}
	return []*os.File{files[0], files[3], files[5]}, nil
}

// startHere enters the place with the calling thread and starts the command in it.
func (s *session) startHere(p place, request wire.Request, files []*os.File) error {
	if err := p.enter(); err != nil {
		return err
	}
	args := append(append([]string{}, p.prefix...), words(request.Args)...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(environment(), words(request.Env)...)
	cmd.Dir = "/root"
	if request.Dir != "" {
		cmd.Dir = request.Dir
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: s.tty != nil}
	s.cmd = cmd
	return cmd.Start()
}

func words(raw [][]byte) []string {
	list := make([]string, len(raw))
	for i, w := range raw {
		list[i] = string(w)
	}
	return list
}

// copyOut sends an output to the host until it ends, or until it is silent after the command's end.
func (s *session) copyOut(o output) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := o.file.Read(buffer)
		if n > 0 {
			if s.conn.Send(o.kind, buffer[:n]) != nil {
				s.kill()
				return
			}
			if s.ended.Load() {
				_ = o.file.SetReadDeadline(time.Now().Add(quiet))
			}
		}
		if err != nil {
			return
		}
	}
}

// readHost takes frames from the host until the connection ends; then the command must not outlive it.
func (s *session) readHost() {
	input := make(chan []byte, wire.Window+1) // and the end
	go s.feed(input)
	defer close(input)
	for {
		kind, payload, err := s.conn.Receive()
		if err != nil {
			s.kill()
			return
		}
		switch kind {
		case wire.Stdin, wire.StdinEnd:
			if len(input) == cap(input) {
				s.kill() // the host ignores the window
				return
			}
			if kind == wire.StdinEnd {
				payload = nil // a frame of Stdin is never nil
			}
			input <- payload
		case wire.Resize:
			var size wire.Size
			if json.Unmarshal(payload, &size) == nil && s.tty != nil {
				_ = resize(s.tty, size)
			}
		}
	}
}

// feed writes to the command what the host sent and tells the host what was taken. An empty piece is the end.
func (s *session) feed(input <-chan []byte) {
	var broken bool
	for piece := range input {
		if piece == nil {
			s.endInput()
			continue
		}
		if !broken {
			_, err := s.stdin.Write(piece)
			broken = err != nil
		}
		_ = s.conn.Send(wire.Taken, nil)
	}
	if s.tty == nil {
		s.stdin.Close()
	}
}

// endInput lets the command read the end of its input: by closing a pipe, by an end-of-file character on a terminal.
func (s *session) endInput() {
	if s.tty != nil {
		_, _ = s.tty.Write([]byte{4})
		return
	}
	s.stdin.Close()
}

// kill ends the command and its process group, unless it has ended.
func (s *session) kill() {
	if !s.ended.Load() {
		_ = unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL)
	}
}

func ptySlave(master *os.File) (string, error) {
	var number int
	err := controlFile(master, func(fd int) (err error) {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	return fmt.Sprintf("/dev/pts/%d", number), err
}

// controlFile calls do with the descriptor, leaving the file able to have deadlines, unlike File.Fd.
func controlFile(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = do(int(fd)) })
	return errors.Join(err, failed)
}

func resize(tty *os.File, size wire.Size) error {
	return controlFile(tty, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Columns})
	})
}
