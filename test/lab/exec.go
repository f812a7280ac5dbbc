package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/bladenet/bladenet/test/lab/wire"
)

// Command is a command to run in a lab. Nil streams are empty, or thrown away.
type Command struct {
	In     string   // blade (or empty), another blade's name, router, client, or a guest
	Args   []string // program and arguments, as they are: no shell sees them
	Env    []string // KEY=VALUE, over the machine's own
	Dir    string   // working folder; /root if empty
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer

	Size    *wire.Size       // give the command a terminal of this size
	Resizes <-chan wire.Size // new sizes of that terminal
}

// Exec runs a command to its end and returns its status as a shell has it: 126 or 127 if it could not be started (then the
// error says why too), 128 and the signal's number if a signal ended it. When ctx ends the command is killed with its
// group and the status is 130.
func (l *Lab) Exec(ctx context.Context, c Command) (int, error) {
	var s spec
	var r running
	if !l.alive() || l.read(fileSpec, &s) != nil || l.read(fileRunning, &r) != nil {
		return 125, l.why()
	}
	if s.Version > specVersion {
		return 125, fmt.Errorf("lab %s was started by another build of this program: lab down, then lab up", l.Name)
	}
	status, err := execAt(ctx, r.Port, s.Token, c)
	return status, l.withCause(err)
}

// What keeps a machine from bringing a command to its end.
var (
	errLost = errors.New("connection to the machine is lost")
	errHung = fmt.Errorf("start command: the machine does not answer for %v", startLimit)
)

// withCause puts what the machine last said behind an error that comes from its death or its hanging.
func (l *Lab) withCause(err error) error {
	switch {
	case errors.Is(err, errLost) && !l.aliveAfter(5*time.Second):
		return fmt.Errorf("%w\n%w", err, l.why())
	case errors.Is(err, errHung):
		return fmt.Errorf("%w; end of %s\n%s", err, l.path(fileConsole), l.tail(fileConsole))
	}
	return err
}

// aliveAfter gives a supervisor time to notice that its machine has ended.
func (l *Lab) aliveAfter(grace time.Duration) bool {
	for end := time.Now().Add(grace); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if !l.alive() {
			return false
		}
	}
	return true
}

// startLimit is how long a machine may take to start a command. A slow one takes a tenth of a second, a hung one forever.
const startLimit = 30 * time.Second

func execAt(ctx context.Context, port int, token string, c Command) (int, error) {
	stream, err := (&net.Dialer{}).DialContext(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return 125, fmt.Errorf("%w: %w", errLost, err)
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, func() { stream.Close() })()
	conn := wire.NewConn(stream)
	request := wire.Request{Token: token, Args: rawWords(c.Args), Env: rawWords(c.Env), Dir: c.Dir, In: c.In, Size: c.Size}
	_ = stream.SetReadDeadline(time.Now().Add(startLimit))
	if err := conn.SendJSON(wire.Ask, request); err != nil {
		return 125, fmt.Errorf("%w: %w", errLost, err)
	}
	tokens := make(chan struct{}, wire.Window)
	ended := make(chan struct{})
	defer close(ended)
	go sendInput(conn, c.Stdin, tokens, ended)
	go sendResizes(conn, c.Resizes, ended)
	status, err := receiveOutput(conn, c, tokens, func() { _ = stream.SetReadDeadline(time.Time{}) })
	switch {
	case ctx.Err() != nil:
		return 130, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 125, errHung
	}
	return status, err
}

func rawWords(words []string) [][]byte {
	raw := make([][]byte, len(words))
	for i, w := range words {
		raw[i] = []byte(w)
	}
	return raw
}

// sendInput sends what there is to read, no faster than the command takes it: one token per frame under way.
func sendInput(conn *wire.Conn, in io.Reader, tokens chan<- struct{}, ended <-chan struct{}) {
	buffer := make([]byte, 32<<10)
	for in != nil {
		n, err := in.Read(buffer)
		if n > 0 {
			select {
			case tokens <- struct{}{}:
			case <-ended:
				return
			}
			if conn.Send(wire.Stdin, buffer[:n]) != nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	_ = conn.Send(wire.StdinEnd, nil)
}

func sendResizes(conn *wire.Conn, sizes <-chan wire.Size, ended <-chan struct{}) {
	for {
		select {
		case size := <-sizes:
			_ = conn.SendJSON(wire.Resize, size)
		case <-ended:
			return
		}
	}
}

// receiveOutput copies both outputs until the command's end. It calls started when the command runs.
func receiveOutput(conn *wire.Conn, c Command, tokens <-chan struct{}, started func()) (int, error) {
	for {
		kind, payload, err := conn.Receive()
		if err != nil {
			return 125, fmt.Errorf("%w: %w", errLost, err)
		}
		switch kind {
		case wire.Started:
			started()
		case wire.Stdout:
			err = writeTo(c.Stdout, payload)
		case wire.Stderr:
			err = writeTo(c.Stderr, payload)
		case wire.Taken:
			<-tokens
		case wire.Exit:
			var result wire.Result
			if err := json.Unmarshal(payload, &result); err != nil {
				return 125, fmt.Errorf("read result: %w", err)
			}
			if result.Reason != "" {
				return result.Status, errors.New(result.Reason)
			}
			return result.Status, nil
		}
		if err != nil {
			return 125, fmt.Errorf("write output: %w", err)
		}
	}
}

func writeTo(w io.Writer, data []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(data)
	return err
}

// awaitAgent waits until the machine answers, or the lab is gone, or ctx ends.
func (l *Lab) awaitAgent(ctx context.Context, s spec) (running, error) {
	var r running
	for {
		if !l.alive() {
			return r, l.why()
		}
		if l.read(fileRunning, &r) == nil {
			try, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err := execAt(try, r.Port, s.Token, Command{Args: []string{"/bin/true"}})
			cancel()
			if err == nil {
				return r, nil
			}
		}
		select {
		case <-ctx.Done():
			return r, fmt.Errorf("wait for machine: %w; end of its console:\n%s", ctx.Err(), l.tail(fileConsole))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
