package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// ExecProtocol is what a connection is upgraded to for a command, or for a console: the client sends one byte with three open files, standard
// input, output and error; the daemon sends one ExecResult when the command has ended, or the guest has. A client that hangs up ends it.
const ExecProtocol = "bladenet-exec"

// ExecRequest asks that a command be run in a container.
type ExecRequest struct {
	Name    policy.GuestName `json:"name"`
	Command []string         `json:"command"`        // program, looked for in PATH, and its arguments
	Term    string           `json:"term,omitempty"` // TERM in its environment
}

// ConsoleRequest asks for a guest's console.
type ConsoleRequest struct {
	Name policy.GuestName `json:"name"`
}

// ExecResult says how a command ended.
type ExecResult struct {
	Status int    `json:"status"` // its exit status, or 128 and the signal that ended it
	Error  string `json:"error,omitempty"`
}

// Exec runs a command in a container with these files and returns its exit status. When ctx ends the command is ended.
func (c *Client) Exec(ctx context.Context, r ExecRequest, files [3]*os.File) (int, error) {
	return c.handFiles(ctx, "exec", r, files)
}

// Console couples a guest's console with these files until the guest, the first of them or ctx ends.
func (c *Client) Console(ctx context.Context, r ConsoleRequest, files [3]*os.File) error {
	_, err := c.handFiles(ctx, "console", r, files)
	return err
}

// handFiles asks for something that is done with this process's files, and waits for its end.
func (c *Client) handFiles(ctx context.Context, verb string, request any, files [3]*os.File) (int, error) {
	if c.socket == "" {
		return 0, errors.New(verb + ": files are handed over on the blade's own socket: run bladectl there")
	}
	stream, err := (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return 0, c.explain(err)
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, func() { stream.Close() })()
	in, err := upgrade(ctx, stream, verb, request)
	if err != nil {
		return 0, err
	}
	rights := unix.UnixRights(int(files[0].Fd()), int(files[1].Fd()), int(files[2].Fd()))
	if _, _, err := stream.(*net.UnixConn).WriteMsgUnix([]byte{0}, rights, nil); err != nil {
		return 0, fmt.Errorf("hand files to bladed: %w", err)
	}
	var out ExecResult
	if err := json.NewDecoder(in).Decode(&out); err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, fmt.Errorf("%s: bladed has ended, and it with it", verb)
	}
	if out.Error != "" {
		return 0, errors.New(out.Error)
	}
	return out.Status, nil
}

// upgrade sends the request and returns what to read the answer from.
func upgrade(ctx context.Context, stream net.Conn, verb string, request any) (*bufio.Reader, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", verb, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://bladed/"+Version+"/"+verb, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", verb, err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", ExecProtocol)
	if err := req.Write(stream); err != nil {
		return nil, fmt.Errorf("ask %s: %w", verb, err)
	}
	in := bufio.NewReader(stream)
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", verb, err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return nil, errors.New(string(bytes.TrimSpace(text)))
	}
	return in, nil
}
